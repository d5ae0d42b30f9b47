#include <immintrin.h>

#include "depthwise_kernels.h"
#include "kernels/depthwise_spans.h"
#include "kernels/unroll.h"

namespace gristmill {
namespace {

/// As many sums as hide the latency of a multiplication.
constexpr int kVectors = 8;
constexpr std::size_t kBlock = 8 * kVectors;

struct WholeLoads {
  [[gnu::always_inline]] __m256 operator()(const float* p, std::size_t) const { return _mm256_loadu_ps(p); }
};

/// Reads the lanes before `count` and no others.
struct PartialLoads {
  std::size_t count;
  __m256 operator()(const float* p, std::size_t first) const {
    const __m256i lane = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                          _mm256_set1_epi32(static_cast<int>(first)));
    return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane));
  }
};

template <class Load>
[[gnu::always_inline]] inline void convolve_block(const DepthwiseJob& job, std::size_t lane, Load load,
                                                  float* out) {
  const auto& epilogue = *static_cast<const EpilogueF32*>(job.epilogue);
  const auto* weights = static_cast<const float*>(job.weights);
  const float* source = static_cast<const float*>(job.source) + lane;
  __m256 sum[kVectors];
  unroll<kVectors>([&](auto v) GRISTMILL_INLINE { sum[v] = _mm256_setzero_ps(); });
  for (std::size_t t = 0, taps = job.taps; t < taps; ++t) {
    const __m256 weight = _mm256_broadcast_ss(weights + t);
    const float* p = source + job.tap_offset[t];
    unroll<kVectors>(
        [&](auto v) GRISTMILL_INLINE { sum[v] = _mm256_fmadd_ps(load(p + 8 * v, 8 * v), weight, sum[v]); });
  }
  const __m256 bias = _mm256_broadcast_ss(epilogue.bias);
  const __m256 low = _mm256_set1_ps(epilogue.low), high = _mm256_set1_ps(epilogue.high);
  unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
    // The second operand is the result where one is NaN.
    const __m256 value = _mm256_min_ps(high, _mm256_max_ps(low, _mm256_add_ps(sum[v], bias)));
    _mm256_storeu_ps(out + 8 * v, value);
  });
}

void depthwise_f32(const DepthwiseJob& job) {
  for_each_span<kBlock, sizeof(float)>(job, [&](std::size_t lane, std::size_t count, void* to) {
    auto* out = static_cast<float*>(to);
    if (count < kBlock && job.readable_slack < kBlock - 1)
      return convolve_block(job, lane, PartialLoads{count}, out);
    for (std::size_t i = 0; i < count; i += kBlock) {
      const std::size_t at = i + kBlock <= count || count < kBlock ? i : count - kBlock;
      convolve_block(job, lane + at, WholeLoads{}, out + at);
    }
  });
}

}  // namespace

void install_depthwise_f32_avx2(DepthwiseKernels& slots) { slots.f32 = depthwise_f32; }

}  // namespace gristmill
