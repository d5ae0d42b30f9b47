#include <immintrin.h>

#include "elementwise_kernels.h"
#include "kernels/byte_sums.h"

namespace gristmill {
namespace {

std::uint64_t first_bits(std::size_t count) { return (std::uint64_t{1} << count) - 1; }

/// Sixty-four bytes.
struct Level {
  using Bytes = __m512i;
  using Floats = __m512;
  static constexpr std::size_t kBytes = 64;

  static Bytes load(const std::uint8_t* p) { return _mm512_loadu_si512(p); }
  static void store(std::uint8_t* p, Bytes v) { _mm512_storeu_si512(p, v); }
  static Bytes load_first(const std::uint8_t* p, std::size_t count) {
    return _mm512_maskz_loadu_epi8(first_bits(count), p);
  }
  static void store_first(std::uint8_t* p, Bytes v, std::size_t count) {
    _mm512_mask_storeu_epi8(p, first_bits(count), v);
  }
  static Floats all(float value) { return _mm512_set1_ps(value); }
  static Bytes all_bytes(std::int32_t value) { return _mm512_set1_epi8(static_cast<char>(value)); }
  static Bytes all_words(std::int32_t value) { return _mm512_set1_epi16(static_cast<std::int16_t>(value)); }

  template <int k, bool is_signed, bool plain>
  static constexpr int kExponent = plain && !is_signed ? 8 * k : 0;

  template <int k, bool is_signed, bool plain>
  static Floats number(Bytes x) {
    if constexpr (is_signed)
      return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(x, 24 - 8 * k), 24));
    if constexpr (!plain) x = _mm512_srli_epi32(x, 8 * k);
    constexpr std::uint32_t mask = 255u << kExponent<k, is_signed, plain>;
    return _mm512_cvtepu32_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<std::int32_t>(mask))));
  }
  static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats cap(Floats high, Floats v) { return _mm512_min_ps(high, v); }
  static Bytes rounded(Floats v) { return _mm512_cvtps_epi32(v); }
  static Bytes narrow_words(Bytes a, Bytes b) { return _mm512_packs_epi32(a, b); }
  static Bytes narrow_bytes(Bytes a, Bytes b) { return _mm512_packus_epi16(a, b); }
  static Bytes add_words(Bytes a, Bytes b) { return _mm512_adds_epi16(a, b); }
  static Bytes max(Bytes a, Bytes b) { return _mm512_max_epu8(a, b); }
  static Bytes min(Bytes a, Bytes b) { return _mm512_min_epu8(a, b); }
  static Bytes flip(Bytes a, Bytes b) { return _mm512_xor_si512(a, b); }
  static Bytes order(Bytes v) {
    const __m128i transposed = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(transposed));
  }
};

/// max and min yield their second operand if either is NaN.
void add_f32(const float* a, const float* b, float low, float high, float* out, std::size_t count) {
  const __m512 lows = _mm512_set1_ps(low), highs = _mm512_set1_ps(high);
  const auto clamped = [&](__m512 sum) { return _mm512_min_ps(highs, _mm512_max_ps(lows, sum)); };
  std::size_t i = 0;
  for (; i + 16 <= count; i += 16)
    _mm512_storeu_ps(out + i, clamped(_mm512_add_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i))));
  if (i == count) return;
  const auto part = static_cast<__mmask16>(first_bits(count - i));
  const __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(part, a + i), _mm512_maskz_loadu_ps(part, b + i));
  _mm512_mask_storeu_ps(out + i, part, clamped(sum));
}

}  // namespace

void install_elementwise_avx512vnni(ElementwiseKernels& slots) {
  slots.add_bytes = add_bytes<Level>;
  slots.add_f32 = add_f32;
}

}  // namespace gristmill
