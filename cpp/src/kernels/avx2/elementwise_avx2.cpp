#include <immintrin.h>

#include "elementwise_kernels.h"
#include "kernels/byte_sums.h"

namespace gristmill {
namespace {

/// Applies `eight` to whole vectors and to a tail, which is moved through a buffer.
template <class Eight>
void for_each_eight(const float* in, float* out, std::size_t count, Eight eight) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) _mm256_storeu_ps(out + i, eight(_mm256_loadu_ps(in + i)));
  if (i == count) return;
  alignas(32) float tail[8] = {};
  for (std::size_t j = 0; i + j < count; ++j) tail[j] = in[i + j];
  _mm256_store_ps(tail, eight(_mm256_load_ps(tail)));
  for (std::size_t j = 0; i + j < count; ++j) out[i + j] = tail[j];
}

__m256 times_plus(__m256 p, __m256 r, float constant) {
  return _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(constant));
}

__m256 power_of_two(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

__m256 elementwise_exp(__m256 x) {
  const __m256 rounder = _mm256_set1_ps(0x1.8p23f);
  x = _mm256_min_ps(_mm256_set1_ps(89.0f), x);
  x = _mm256_max_ps(_mm256_set1_ps(-104.0f), x);
  const __m256 shifted = _mm256_add_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p0f)), rounder);
  const __m256 n = _mm256_sub_ps(shifted, rounder);
  const __m256i power = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(rounder));
  __m256 r = _mm256_sub_ps(x, _mm256_mul_ps(n, _mm256_set1_ps(0.693359375f)));
  r = _mm256_add_ps(r, _mm256_mul_ps(n, _mm256_set1_ps(2.12194440e-4f)));
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  p = times_plus(p, r, 1.3981999507e-3f);
  p = times_plus(p, r, 8.3334519073e-3f);
  p = times_plus(p, r, 4.1665795894e-2f);
  p = times_plus(p, r, 1.6666665459e-1f);
  p = times_plus(p, r, 5.0000001201e-1f);
  p = _mm256_add_ps(_mm256_mul_ps(p, _mm256_mul_ps(r, r)), r);
  p = _mm256_add_ps(p, _mm256_set1_ps(1.0f));
  const __m256i half = _mm256_srai_epi32(power, 1);
  return _mm256_mul_ps(_mm256_mul_ps(p, power_of_two(half)), power_of_two(_mm256_sub_epi32(power, half)));
}

__m256 hardsigmoid(__m256 x) {
  const __m256 value = times_plus(x, _mm256_set1_ps(1.0f / 6.0f), 0.5f);
  return _mm256_min_ps(_mm256_set1_ps(1.0f), _mm256_max_ps(_mm256_setzero_ps(), value));
}

__m256 sigmoid(__m256 x) {
  const __m256 one = _mm256_set1_ps(1.0f);
  const __m256 negated = _mm256_xor_ps(x, _mm256_set1_ps(-0.0f));
  return _mm256_div_ps(one, _mm256_add_ps(one, elementwise_exp(negated)));
}

void curve_f32(Curve curve, float alpha, const float* in, float* out, std::size_t count) {
  switch (curve) {
    case Curve::leaky_relu:
      return for_each_eight(in, out, count, [=](__m256 x) {
        const __m256 negative = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ);
        return _mm256_blendv_ps(x, _mm256_mul_ps(_mm256_set1_ps(alpha), x), negative);
      });
    case Curve::hardsigmoid:
      return for_each_eight(in, out, count, [](__m256 x) { return hardsigmoid(x); });
    case Curve::hardswish:
      return for_each_eight(in, out, count, [](__m256 x) { return _mm256_mul_ps(x, hardsigmoid(x)); });
    case Curve::sigmoid:
      return for_each_eight(in, out, count, [](__m256 x) { return sigmoid(x); });
    case Curve::silu:
      return for_each_eight(in, out, count, [](__m256 x) { return _mm256_mul_ps(x, sigmoid(x)); });
  }
}

/// The table is 16 registers of 16 entries. The index minus 16 t, unsigned, is below 16 for the register that
/// holds the entry; adding 0x70 with saturation sets bit 7 for all others, which makes the shuffle yield 0.
void lookup(const std::uint8_t* table, const std::uint8_t* in, std::uint8_t* out, std::size_t count) {
  std::size_t i = 0;
  if (count >= 32) {
    __m256i entries[16];
    for (int t = 0; t < 16; ++t)
      entries[t] =
          _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * t)));
    for (; i + 32 <= count; i += 32) {
      __m256i index = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i));
      __m256i found = _mm256_setzero_si256();
      for (int t = 0; t < 16; ++t) {
        const __m256i chosen = _mm256_adds_epu8(index, _mm256_set1_epi8(0x70));
        found = _mm256_or_si256(found, _mm256_shuffle_epi8(entries[t], chosen));
        index = _mm256_sub_epi8(index, _mm256_set1_epi8(16));
      }
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), found);
    }
  }
  for (; i < count; ++i) out[i] = table[in[i]];
}

/// Thirty-two bytes.
struct Level {
  using Bytes = __m256i;
  using Floats = __m256;
  static constexpr std::size_t kBytes = 32;

  static Bytes load(const std::uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void store(std::uint8_t* p, Bytes v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static Bytes load_first(const std::uint8_t* p, std::size_t count) {
    std::uint8_t bytes[kBytes] = {};
    for (std::size_t i = 0; i < count; ++i) bytes[i] = p[i];
    return load(bytes);
  }
  static void store_first(std::uint8_t* p, Bytes v, std::size_t count) {
    std::uint8_t bytes[kBytes];
    store(bytes, v);
    for (std::size_t i = 0; i < count; ++i) p[i] = bytes[i];
  }
  static Floats all(float value) { return _mm256_set1_ps(value); }
  static Bytes all_bytes(std::int32_t value) { return _mm256_set1_epi8(static_cast<char>(value)); }
  static Bytes all_words(std::int32_t value) { return _mm256_set1_epi16(static_cast<std::int16_t>(value)); }

  /// The uppermost byte would be a sign, and is shifted down.
  template <int k, bool is_signed, bool plain>
  static constexpr int kExponent = plain && !is_signed && k < 3 ? 8 * k : 0;

  template <int k, bool is_signed, bool plain>
  static Floats number(Bytes x) {
    constexpr int exponent = kExponent<k, is_signed, plain>;
    if constexpr (is_signed)
      return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(x, 24 - 8 * k), 24));
    x = _mm256_srli_epi32(x, 8 * k - exponent);
    return _mm256_cvtepi32_ps(k == 3 ? x : _mm256_and_si256(x, _mm256_set1_epi32(255 << exponent)));
  }
  static Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static Floats cap(Floats high, Floats v) { return _mm256_min_ps(high, v); }
  static Bytes rounded(Floats v) { return _mm256_cvtps_epi32(v); }
  static Bytes narrow_words(Bytes a, Bytes b) { return _mm256_packs_epi32(a, b); }
  static Bytes narrow_bytes(Bytes a, Bytes b) { return _mm256_packus_epi16(a, b); }
  static Bytes add_words(Bytes a, Bytes b) { return _mm256_adds_epi16(a, b); }
  static Bytes max(Bytes a, Bytes b) { return _mm256_max_epu8(a, b); }
  static Bytes min(Bytes a, Bytes b) { return _mm256_min_epu8(a, b); }
  static Bytes flip(Bytes a, Bytes b) { return _mm256_xor_si256(a, b); }
  static Bytes order(Bytes v) {
    const __m128i transposed = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(transposed));
  }
};

void add_f32(const float* a, const float* b, float low, float high, float* out, std::size_t count) {
  const __m256 lows = _mm256_set1_ps(low), highs = _mm256_set1_ps(high);
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 sum = _mm256_add_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i));
    _mm256_storeu_ps(out + i, _mm256_min_ps(highs, _mm256_max_ps(lows, sum)));
  }
  for (; i < count; ++i) {
    const float sum = a[i] + b[i];
    const float raised = sum < low ? low : sum;
    out[i] = raised > high ? high : raised;
  }
}

}  // namespace

void install_elementwise_avx2(ElementwiseKernels& slots) {
  slots.lookup = lookup;
  slots.add_bytes = add_bytes<Level>;
  slots.add_f32 = add_f32;
  slots.curve_f32 = curve_f32;
}

}  // namespace gristmill
