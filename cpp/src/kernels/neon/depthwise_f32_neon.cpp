#include <arm_neon.h>

#include "depthwise_kernels.h"
#include "kernels/depthwise_spans.h"
#include "kernels/unroll.h"

namespace gristmill {
namespace {

constexpr int kVectors = 8;
constexpr std::size_t kBlock = 4 * kVectors;

struct WholeLoads {
  [[gnu::always_inline]] float32x4_t operator()(const float* p, std::size_t) const { return vld1q_f32(p); }
};

/// Reads the lanes before `count` and no others.
struct PartialLoads {
  std::size_t count;
  float32x4_t operator()(const float* p, std::size_t first) const {
    float lanes[4] = {};
    for (std::size_t i = 0; first + i < count && i < 4; ++i) lanes[i] = p[i];
    return vld1q_f32(lanes);
  }
};

template <class Load>
[[gnu::always_inline]] inline void convolve_block(const DepthwiseJob& job, std::size_t lane, Load load,
                                                  float* out) {
  const auto& epilogue = *static_cast<const EpilogueF32*>(job.epilogue);
  const auto* weights = static_cast<const float*>(job.weights);
  const float* source = static_cast<const float*>(job.source) + lane;
  float32x4_t sum[kVectors];
  unroll<kVectors>([&](auto v) GRISTMILL_INLINE { sum[v] = vdupq_n_f32(0.0f); });
  for (std::size_t t = 0; t < job.taps; ++t) {
    const float32x4_t weight = vdupq_n_f32(weights[t]);
    const float* p = source + job.tap_offset[t];
    unroll<kVectors>([&](auto v)
                         GRISTMILL_INLINE { sum[v] = vfmaq_f32(sum[v], load(p + 4 * v, 4 * v), weight); });
  }
  const float32x4_t bias = vdupq_n_f32(*epilogue.bias);
  const float32x4_t low = vdupq_n_f32(epilogue.low), high = vdupq_n_f32(epilogue.high);
  unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
    vst1q_f32(out + 4 * v, vminq_f32(vmaxq_f32(vaddq_f32(sum[v], bias), low), high));
  });
}

void depthwise_f32(const DepthwiseJob& job) {
  for_each_span<kBlock, sizeof(float)>(job, [&](std::size_t lane, std::size_t count, void* to) {
    auto* out = static_cast<float*>(to);
    if (count < kBlock && job.readable_slack < kBlock - 1) {
      return convolve_block(job, lane, PartialLoads{count}, out);
    }
    std::size_t i = 0;
    for (; i + kBlock <= count; i += kBlock) convolve_block(job, lane + i, WholeLoads{}, out + i);
    if (i == count) return;
    const std::size_t last = count < kBlock ? 0 : count - kBlock;
    convolve_block(job, lane + last, WholeLoads{}, out + last);
  });
}

}  // namespace

void install_depthwise_f32_neon(DepthwiseKernels& slots) { slots.f32 = depthwise_f32; }

}  // namespace gristmill
