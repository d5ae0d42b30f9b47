#include <immintrin.h>

#include "elementwise_kernels.h"

namespace gristmill {
namespace {

constexpr std::size_t kGroup = 64;

std::uint64_t first_bits(std::size_t count) { return (std::uint64_t{1} << count) - 1; }

/// s / scale of elements, correctly rounded.
struct Divider {
  explicit Divider(float scale) : scale_(_mm512_set1_ps(scale)) {}
  __m512 operator()(__m512 s) const { return _mm512_div_ps(s, scale_); }

 private:
  __m512 scale_;
};

/// The same by Markstein's theorem, where nothing over- or underflows: with the rounded reciprocal, a product
/// is off by less than 2 ulp; one correction makes that less than 1 ulp, and the next one correctly rounded.
struct Multiplier {
  explicit Multiplier(float scale) : scale_(_mm512_set1_ps(scale)), reciprocal_(_mm512_set1_ps(1 / scale)) {}
  __m512 operator()(__m512 s) const { return corrected(s, corrected(s, _mm512_mul_ps(s, reciprocal_))); }

  static bool suits(float scale) { return scale >= 0x1p-30f && scale <= 0x1p30f; }

 private:
  __m512 corrected(__m512 s, __m512 quotient) const {
    return _mm512_fmadd_ps(_mm512_fnmadd_ps(quotient, scale_, s), reciprocal_, quotient);
  }

  __m512 scale_, reciprocal_;
};

struct Dequantizer {
  __m512i zero;
  __m512 scale;
  Dequantizer(std::int32_t zero_point, float step)
      : zero(_mm512_set1_epi32(zero_point)), scale(_mm512_set1_ps(step)) {}
  __m512 operator()(__m128i bytes) const {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(bytes), zero)), scale);
  }
};

/// Sixty-four sums. The upper clamp comes before rounding, so that nothing exceeds s32; below, what does not
/// fit, and NaN, becomes the least s32, which saturates: the lower clamp may then be one of bytes.
template <class Quotient>
class Adder {
 public:
  explicit Adder(const AddBytesJob& job)
      : a_(job.zero_a, job.scale_a),
        b_(job.zero_b, job.scale_b),
        quotient_(job.scale_out),
        high_(_mm512_set1_ps(job.high)),
        flip_a_(bytes_of(job.flip_a)),
        flip_b_(bytes_of(job.flip_b)),
        flip_out_(bytes_of(job.flip_out)),
        zero_(_mm512_set1_epi16(static_cast<std::int16_t>(job.zero_out))),
        low_(bytes_of(static_cast<std::int32_t>(job.low) + job.zero_out)) {}

  __m512i operator()(__m512i a, __m512i b) const {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    a = _mm512_xor_si512(a, flip_a_);
    b = _mm512_xor_si512(b, flip_b_);
    const __m512i q0 = rounded(_mm512_castsi512_si128(a), _mm512_castsi512_si128(b));
    const __m512i q1 = rounded(_mm512_extracti32x4_epi32(a, 1), _mm512_extracti32x4_epi32(b, 1));
    const __m512i q2 = rounded(_mm512_extracti32x4_epi32(a, 2), _mm512_extracti32x4_epi32(b, 2));
    const __m512i q3 = rounded(_mm512_extracti32x4_epi32(a, 3), _mm512_extracti32x4_epi32(b, 3));
    const __m512i bytes = _mm512_packus_epi16(_mm512_adds_epi16(_mm512_packs_epi32(q0, q1), zero_),
                                              _mm512_adds_epi16(_mm512_packs_epi32(q2, q3), zero_));
    return _mm512_xor_si512(_mm512_permutexvar_epi32(order, _mm512_max_epu8(bytes, low_)), flip_out_);
  }

 private:
  static __m512i bytes_of(std::int32_t value) { return _mm512_set1_epi8(static_cast<char>(value)); }

  __m512i rounded(__m128i a, __m128i b) const {
    return _mm512_cvtps_epi32(_mm512_min_ps(high_, quotient_(_mm512_add_ps(a_(a), b_(b)))));
  }

  Dequantizer a_, b_;
  Quotient quotient_;
  __m512 high_;
  __m512i flip_a_, flip_b_, flip_out_, zero_, low_;
};

template <class Quotient>
void add_groups(const AddBytesJob& job) {
  const Adder<Quotient> add(job);
  std::size_t i = 0;
  for (; i + kGroup <= job.count; i += kGroup)
    _mm512_storeu_si512(job.out + i, add(_mm512_loadu_si512(job.a + i), _mm512_loadu_si512(job.b + i)));
  if (i == job.count) return;
  const __mmask64 part = first_bits(job.count - i);
  _mm512_mask_storeu_epi8(
      job.out + i, part,
      add(_mm512_maskz_loadu_epi8(part, job.a + i), _mm512_maskz_loadu_epi8(part, job.b + i)));
}

void add_bytes(const AddBytesJob& job) {
  const bool suits =
      Multiplier::suits(job.scale_a) && Multiplier::suits(job.scale_b) && Multiplier::suits(job.scale_out);
  suits ? add_groups<Multiplier>(job) : add_groups<Divider>(job);
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
