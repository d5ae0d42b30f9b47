#include <immintrin.h>

#include <cstddef>

#include "depthwise_kernels.h"
#include "f32_avx512vnni.h"
#include "kernels/depthwise_spans.h"
#include "kernels/depthwise_strips_f32.h"
#include "kernels/unroll.h"

namespace gristmill {
namespace {

constexpr int kVectors = 4;
constexpr std::size_t kBlock = 16 * kVectors;
constexpr __mmask16 kAll = 0xFFFF;

struct WholeLoads {
  [[gnu::always_inline]] __m512 operator()(const float* p, int v) const {
    return _mm512_loadu_ps(p + 16 * v);
  }
};

/// Reads the lanes of the mask and no others.
struct PartialLoads {
  std::uint64_t mask;
  [[gnu::always_inline]] __m512 operator()(const float* p, int v) const {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16 * v), p + 16 * v);
  }
};

template <class Load>
[[gnu::always_inline]] inline void convolve_block(const DepthwiseJob& job, std::size_t lane, Load load,
                                                  float* out) {
  const auto& epilogue = *static_cast<const EpilogueF32*>(job.epilogue);
  const auto* weights = static_cast<const float*>(job.weights);
  const float* source = static_cast<const float*>(job.source) + lane;
  // Even and odd taps apart: as many sums as hide the latency of a multiplication.
  __m512 sum[2][kVectors];
  const auto set_zero = [&](auto v) GRISTMILL_INLINE { sum[0][v] = sum[1][v] = _mm512_setzero_ps(); };
  unroll<kVectors>(set_zero);
  const auto add_tap = [&](std::size_t t, auto parity) GRISTMILL_INLINE {
    const __m512 weight = _mm512_set1_ps(weights[t]);
    const float* p = source + job.tap_offset[t];
    unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
      sum[parity][v] = _mm512_fmadd_ps(load(p, v), weight, sum[parity][v]);
    });
  };
  std::size_t t = 0;
  for (; t + 2 <= job.taps; t += 2) {
    add_tap(t, Index<0>{});
    add_tap(t + 1, Index<1>{});
  }
  if (t < job.taps) add_tap(t, Index<0>{});
  const __m512 bias = _mm512_set1_ps(*epilogue.bias);
  const __m512 low = _mm512_set1_ps(epilogue.low), high = _mm512_set1_ps(epilogue.high);
  unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
    // The second operand is the result where one is NaN.
    const __m512 at_least_low =
        _mm512_maskz_max_ps(kAll, low, _mm512_add_ps(_mm512_add_ps(sum[0][v], sum[1][v]), bias));
    _mm512_storeu_ps(out + 16 * v, _mm512_maskz_min_ps(kAll, high, at_least_low));
  });
}

void depthwise_f32(const DepthwiseJob& job) {
  for_each_span<kBlock, sizeof(float)>(job, [&](std::size_t lane, std::size_t count, void* to) {
    auto* out = static_cast<float*>(to);
    if (count < kBlock) return convolve_block(job, lane, PartialLoads{(std::uint64_t{1} << count) - 1}, out);
    std::size_t i = 0;
    for (; i + kBlock <= count; i += kBlock) convolve_block(job, lane + i, WholeLoads{}, out + i);
    if (i < count) convolve_block(job, lane + count - kBlock, WholeLoads{}, out + count - kBlock);
  });
}

struct StripLanes {
  __mmask16 mask;
  [[gnu::always_inline]] StripLanes(std::size_t first, std::size_t count)
      : mask(static_cast<__mmask16>(F32x16::first(count) << first)) {}
  [[gnu::always_inline]] __m512 load(const float* from) const { return _mm512_maskz_loadu_ps(mask, from); }
};

struct StripPair {
  __m512 a, b;
  [[gnu::always_inline]] StripPair(__m512 first, __m512 second) : a(first), b(second) {}
  [[gnu::always_inline]] __m512 even() const {
    return _mm512_permutex2var_ps(
        a, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), b);
  }
  [[gnu::always_inline]] __m512 odd() const {
    return _mm512_permutex2var_ps(
        a, _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31), b);
  }
  [[gnu::always_inline]] static __m512 shifted(__m512 x, __m512 before) {
    return _mm512_permutex2var_ps(
        before, _mm512_setr_epi32(0, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30), x);
  }
};

}  // namespace

void install_depthwise_f32_avx512vnni(DepthwiseKernels& slots) {
  slots.f32 = depthwise_f32;
  slots.strips_f32 = strips_f32<F32x16, StripLanes, StripPair>;
}

}  // namespace gristmill
