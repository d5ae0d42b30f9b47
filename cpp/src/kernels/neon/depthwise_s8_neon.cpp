#include <arm_neon.h>

#include "depthwise_kernels.h"
#include "kernels/depthwise_spans.h"
#include "kernels/neon/epilogue_neon.h"
#include "kernels/unroll.h"

/// Pixels are widened to s16 and multiplied into s32 sums: any s8 weight is exact, and packed weights are the
/// taps in order.
namespace gristmill {
namespace {

constexpr int kVectors = 2;
constexpr std::size_t kBlock = 16 * kVectors;

std::size_t packed_s8_bytes(std::size_t taps) { return taps; }

void pack_s8(const std::int8_t* weights, std::size_t taps, void* packed) {
  for (std::size_t t = 0; t < taps; ++t) static_cast<std::int8_t*>(packed)[t] = weights[t];
}

struct WholeLoads {
  [[gnu::always_inline]] uint8x16_t operator()(const std::uint8_t* p, std::size_t) const {
    return vld1q_u8(p);
  }
};

/// Reads the lanes before `count` and no others.
struct PartialLoads {
  std::size_t count;
  uint8x16_t operator()(const std::uint8_t* p, std::size_t first) const {
    std::uint8_t lanes[16] = {};
    for (std::size_t i = 0; first + i < count && i < 16; ++i) lanes[i] = p[i];
    return vld1q_u8(lanes);
  }
};

template <class Load>
[[gnu::always_inline]] inline void convolve_block(const DepthwiseJob& job, std::size_t lane,
                                                  const EpilogueNeon& epilogue, const OneChannelNeon& channel,
                                                  Load load, void* out, std::size_t index) {
  const auto* weights = static_cast<const std::int8_t*>(job.weights);
  const std::uint8_t* source = static_cast<const std::uint8_t*>(job.source) + lane;
  int32x4_t acc[4 * kVectors];
  unroll<4 * kVectors>([&](auto i) GRISTMILL_INLINE { acc[i] = vdupq_n_s32(0); });
  for (std::size_t t = 0; t < job.taps; ++t) {
    const int16x8_t weight = vdupq_n_s16(weights[t]);
    const std::uint8_t* p = source + job.tap_offset[t];
    unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
      const uint8x16_t x = load(p + 16 * v, 16 * v);
      const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x)));
      const int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(x));
      acc[4 * v] = vmlal_s16(acc[4 * v], vget_low_s16(low), vget_low_s16(weight));
      acc[4 * v + 1] = vmlal_high_s16(acc[4 * v + 1], low, weight);
      acc[4 * v + 2] = vmlal_s16(acc[4 * v + 2], vget_low_s16(high), vget_low_s16(weight));
      acc[4 * v + 3] = vmlal_high_s16(acc[4 * v + 3], high, weight);
    });
  }
  epilogue.store<4 * kVectors>(acc, channel, out, index, kBlock);
}

template <std::size_t kElementBytes>
void convolve(const DepthwiseJob& job) {
  const auto& constants = *static_cast<const EpilogueS8*>(job.epilogue);
  const EpilogueNeon epilogue(constants);
  const OneChannelNeon channel(constants, 0);
  for_each_span<kBlock, kElementBytes>(job, [&](std::size_t lane, std::size_t count, void* out) {
    if (count < kBlock && job.readable_slack < kBlock - 1) {
      return convolve_block(job, lane, epilogue, channel, PartialLoads{count}, out, 0);
    }
    std::size_t i = 0;
    for (; i + kBlock <= count; i += kBlock) {
      convolve_block(job, lane + i, epilogue, channel, WholeLoads{}, out, i);
    }
    if (i == count) return;
    const std::size_t last = count < kBlock ? 0 : count - kBlock;
    convolve_block(job, lane + last, epilogue, channel, WholeLoads{}, out, last);
  });
}

void depthwise_s8(const DepthwiseJob& job) {
  const OutputType type = static_cast<const EpilogueS8*>(job.epilogue)->type;
  if (type == OutputType::u8 || type == OutputType::s8) return convolve<1>(job);
  convolve<4>(job);
}

}  // namespace

void install_depthwise_s8_neon(DepthwiseKernels& slots) {
  slots.flip = 0;
  slots.packed_s8_bytes = packed_s8_bytes;
  slots.pack_s8 = pack_s8;
  slots.s8 = depthwise_s8;
}

}  // namespace gristmill
