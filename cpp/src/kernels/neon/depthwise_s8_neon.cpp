#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "depthwise_kernels.h"
#include "kernels/depthwise_spans.h"
#include "kernels/neon/epilogue_neon.h"
#include "kernels/unroll.h"

/// Products of s8 pixels and weights are summed in 16 bits as long as these hold them whatever the source:
/// for |w0| + |w1| + ... <= 255, as 128 * 255 < 2^15. When the weights are packed, the taps are cut into such
/// *bins*, and only whole bins are widened to 32 bits. Zero weights cost nothing.
namespace gristmill {
namespace {

constexpr int kVectors = 2;
constexpr std::size_t kBlock = 16 * kVectors;
constexpr int kBinLimit = 255;

struct Tap {
  std::uint32_t tap;
  std::int8_t weight;
  bool ends_bin;
};

/// Packed weights of a channel.
struct Packed {
  std::uint64_t taps;
  Tap tap[1];  // or more
};

std::size_t packed_s8_bytes(std::size_t taps) { return (sizeof(Packed) + taps * sizeof(Tap) + 63) / 64 * 64; }

int magnitude(std::int8_t weight) { return weight < 0 ? -weight : weight; }

void pack_s8(const std::int8_t* weights, std::size_t taps, void* packed) {
  auto& to = *static_cast<Packed*>(packed);
  to.taps = 0;
  int room = kBinLimit;
  for (std::size_t t = 0; t < taps; ++t) {
    if (weights[t] == 0) continue;
    if (magnitude(weights[t]) > room) {
      to.tap[to.taps - 1].ends_bin = true;
      room = kBinLimit;
    }
    room -= magnitude(weights[t]);
    to.tap[to.taps++] = {static_cast<std::uint32_t>(t), weights[t], false};
  }
  if (to.taps > 0) to.tap[to.taps - 1].ends_bin = true;
}

struct WholeLoads {
  [[gnu::always_inline]] int8x16_t operator()(const std::int8_t* p, int v) const {
    return vld1q_s8(p + 16 * v);
  }
};

/// Reads the lanes before `count` and no others.
struct PartialLoads {
  std::size_t count;
  int8x16_t operator()(const std::int8_t* p, int v) const {
    std::int8_t lanes[16] = {};
    const std::size_t first = static_cast<std::size_t>(16 * v);
    for (std::size_t i = 0; i < 16 && first + i < count; ++i) lanes[i] = p[first + i];
    return vld1q_s8(lanes);
  }
};

template <class Load>
[[gnu::always_inline]] inline void convolve_block(const DepthwiseJob& job, std::size_t lane,
                                                  const EpilogueNeon& epilogue, const OneChannelNeon& channel,
                                                  Load load, void* out, std::size_t index) {
  const std::int8_t* source = static_cast<const std::int8_t*>(job.source) + lane;
  const auto& packed = *static_cast<const Packed*>(job.weights);
  int32x4_t acc[4 * kVectors];
  int16x8_t bin[2 * kVectors];
  unroll<4 * kVectors>([&](auto i) GRISTMILL_INLINE { acc[i] = vdupq_n_s32(0); });
  unroll<2 * kVectors>([&](auto i) GRISTMILL_INLINE { bin[i] = vdupq_n_s16(0); });
  for (const Tap *tap = packed.tap, *end = tap + packed.taps; tap != end; ++tap) {
    const std::int8_t* p = source + job.tap_offset[tap->tap];
    const int8x16_t weight = vdupq_n_s8(tap->weight);
    unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
      const int8x16_t x = load(p, v);
      bin[2 * v] = vmlal_s8(bin[2 * v], vget_low_s8(x), vget_low_s8(weight));
      bin[2 * v + 1] = vmlal_high_s8(bin[2 * v + 1], x, weight);
    });
    if (!tap->ends_bin) continue;
    unroll<2 * kVectors>([&](auto i) GRISTMILL_INLINE {
      acc[2 * i] = vaddw_s16(acc[2 * i], vget_low_s16(bin[i]));
      acc[2 * i + 1] = vaddw_high_s16(acc[2 * i + 1], bin[i]);
      bin[i] = vdupq_n_s16(0);
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
    if (count < kBlock && job.readable_slack < kBlock - 1)
      return convolve_block(job, lane, epilogue, channel, PartialLoads{count}, out, 0);
    for (std::size_t i = 0; i < count; i += kBlock) {
      const std::size_t at = i + kBlock <= count || count < kBlock ? i : count - kBlock;
      convolve_block(job, lane + at, epilogue, channel, WholeLoads{}, out, at);
    }
  });
}

void depthwise_s8(const DepthwiseJob& job) {
  const OutputType type = static_cast<const EpilogueS8*>(job.epilogue)->type;
  if (type == OutputType::u8 || type == OutputType::s8) return convolve<1>(job);
  convolve<4>(job);
}

}  // namespace

void install_depthwise_s8_neon(DepthwiseKernels& slots) {
  slots.flip = 0x80;
  slots.packed_s8_bytes = packed_s8_bytes;
  slots.pack_s8 = pack_s8;
  slots.s8 = depthwise_s8;
}

}  // namespace gristmill
