#include <immintrin.h>

#include "elementwise_kernels.h"

namespace gristmill {
namespace {

constexpr std::size_t kGroup = 64;

std::uint64_t first_bits(std::size_t count) { return (std::uint64_t{1} << count) - 1; }

/// Sixty-four sums. The upper clamp comes before rounding, so that nothing exceeds s32; below, what does not
/// fit becomes the least s32, which saturates: the lower clamp may then be one of bytes.
class Adder {
 public:
  explicit Adder(const AddBytesJob& job)
      : ratio_a_(_mm512_set1_ps(job.ratio_a)),
        ratio_b_(_mm512_set1_ps(job.ratio_b)),
        fixed_(_mm512_set1_ps(job.fixed)),
        high_(_mm512_set1_ps(job.high)),
        sign_a_(_mm512_set1_epi32(job.sign_a)),
        sign_b_(_mm512_set1_epi32(job.sign_b)),
        raise_(_mm512_set1_epi16(job.sign_out)),
        sign_out_(bytes_of(job.sign_out)),
        low_(bytes_of(static_cast<std::int32_t>(job.low) + job.sign_out)) {}

  __m512i operator()(__m512i a, __m512i b) const {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i q0 = rounded(_mm512_castsi512_si128(a), _mm512_castsi512_si128(b));
    const __m512i q1 = rounded(_mm512_extracti32x4_epi32(a, 1), _mm512_extracti32x4_epi32(b, 1));
    const __m512i q2 = rounded(_mm512_extracti32x4_epi32(a, 2), _mm512_extracti32x4_epi32(b, 2));
    const __m512i q3 = rounded(_mm512_extracti32x4_epi32(a, 3), _mm512_extracti32x4_epi32(b, 3));
    const __m512i bytes = _mm512_packus_epi16(_mm512_adds_epi16(_mm512_packs_epi32(q0, q1), raise_),
                                              _mm512_adds_epi16(_mm512_packs_epi32(q2, q3), raise_));
    return _mm512_xor_si512(_mm512_permutexvar_epi32(order, _mm512_max_epu8(bytes, low_)), sign_out_);
  }

 private:
  static __m512i bytes_of(std::int32_t value) { return _mm512_set1_epi8(static_cast<char>(value)); }

  static __m512 loaded(__m128i bytes, __m512i sign) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_xor_si512(_mm512_cvtepu8_epi32(bytes), sign), sign));
  }

  __m512i rounded(__m128i a, __m128i b) const {
    const __m512 partial = _mm512_fmadd_ps(loaded(b, sign_b_), ratio_b_, fixed_);
    return _mm512_cvtps_epi32(_mm512_min_ps(high_, _mm512_fmadd_ps(loaded(a, sign_a_), ratio_a_, partial)));
  }

  __m512 ratio_a_, ratio_b_, fixed_, high_;
  __m512i sign_a_, sign_b_, raise_, sign_out_, low_;
};

void add_bytes(const AddBytesJob& job) {
  const Adder add(job);
  std::size_t i = 0;
  for (; i + kGroup <= job.count; i += kGroup)
    _mm512_storeu_si512(job.out + i, add(_mm512_loadu_si512(job.a + i), _mm512_loadu_si512(job.b + i)));
  if (i == job.count) return;
  const __mmask64 part = first_bits(job.count - i);
  _mm512_mask_storeu_epi8(
      job.out + i, part,
      add(_mm512_maskz_loadu_epi8(part, job.a + i), _mm512_maskz_loadu_epi8(part, job.b + i)));
}

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
  slots.add_bytes = add_bytes;
  slots.add_f32 = add_f32;
}

}  // namespace gristmill
