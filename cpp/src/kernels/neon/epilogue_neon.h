#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "epilogue_kernels.h"

/// The int8 epilogue on vectors of accumulators, for every NEON level and every kernel that ends in one.
///
/// Accumulators come as N vectors of four that belong to consecutive elements of the output:
///
///     const EpilogueNeon epilogue(e);                     constants in registers, once per tile
///     const OneChannelNeon channel(e, row);               or ManyChannelsNeon<3>(e, first_channel, count)
///     epilogue.store<3>(acc, channel, out, index, count)  writes out[index .. index + count), count <= 12
///
/// After the clamp every value fits its narrow type, so narrowing keeps the low halves (uzp1):
///
///     s32x4 s32x4 -> uzp1 -> s16x8 -> + zero point --+
///                                                    +-> uzp1 -> 16 bytes
///     s32x4 s32x4 -> uzp1 -> s16x8 -> + zero point --+
namespace gristmill {
namespace {

/// Bias and scale of accumulators that are all of one channel. The scale of an s32 output is not used.
struct OneChannelNeon {
  int32x4_t bias_all;
  float32x4_t scale_all;

  [[gnu::always_inline]] OneChannelNeon(const EpilogueS8& epilogue, std::size_t channel)
      : bias_all(vdupq_n_s32(epilogue.bias[channel])),
        scale_all(vdupq_n_f32(epilogue.type == OutputType::s32 ? 0.0f : epilogue.scale[channel])) {}
  [[gnu::always_inline]] int32x4_t bias(int) const { return bias_all; }
  [[gnu::always_inline]] float32x4_t scale(int) const { return scale_all; }
};

/// Stores the first `count` < 16 bytes of `vector`.
[[gnu::always_inline]] inline void store_first(uint8x16_t vector, std::uint8_t* out, std::size_t count) {
  if (count & 8) {
    vst1_u8(out, vget_low_u8(vector));
    vector = vextq_u8(vector, vector, 8);
    out += 8;
  }
  if (count & 4) {
    const std::uint32_t word = vgetq_lane_u32(vreinterpretq_u32_u8(vector), 0);
    __builtin_memcpy(out, &word, 4);
    vector = vextq_u8(vector, vector, 4);
    out += 4;
  }
  if (count & 2) {
    vst1q_lane_u8(out, vector, 0);
    vst1q_lane_u8(out + 1, vector, 1);
    vector = vextq_u8(vector, vector, 2);
    out += 2;
  }
  if (count & 1) vst1q_lane_u8(out, vector, 0);
}

/// Bias and scale of 4N accumulators of consecutive channels, of which the first `count` exist: read in place
/// where all do, and from padded copies otherwise.
template <int N>
class ManyChannelsNeon {
 public:
  ManyChannelsNeon(const EpilogueS8& epilogue, std::size_t first, std::size_t count)
      : bias_(epilogue.bias + first),
        scale_(epilogue.type == OutputType::s32 ? kZeros : epilogue.scale + first) {
    if (count == 4 * N) return;
    for (std::size_t i = 0; i < count; ++i) {
      bias_copy_[i] = bias_[i];
      scale_copy_[i] = scale_ == kZeros ? 0.0f : scale_[i];
    }
    bias_ = bias_copy_;
    scale_ = scale_copy_;
  }
  ManyChannelsNeon(const ManyChannelsNeon&) = delete;
  ManyChannelsNeon& operator=(const ManyChannelsNeon&) = delete;

  [[gnu::always_inline]] int32x4_t bias(int n) const { return vld1q_s32(bias_ + 4 * n); }
  [[gnu::always_inline]] float32x4_t scale(int n) const { return vld1q_f32(scale_ + 4 * n); }

 private:
  static constexpr float kZeros[4 * N] = {};
  std::int32_t bias_copy_[4 * N] = {};
  float scale_copy_[4 * N] = {};
  const std::int32_t* bias_;
  const float* scale_;
};

/// Stores the first `count` <= `bytes` bytes of `vectors`.
template <int bytes>
[[gnu::always_inline]] inline void store_exactly(const uint8x16_t* vectors, std::uint8_t* out,
                                                 std::size_t count) {
  for (int n = 0; n < bytes / 16; ++n, out += 16, count -= 16) {
    if (count < 16) return store_first(vectors[n], out, count);
    vst1q_u8(out, vectors[n]);
  }
  if constexpr (bytes % 16 != 0) store_first(vectors[bytes / 16], out, count);
}

class EpilogueNeon {
 public:
  [[gnu::always_inline]] explicit EpilogueNeon(const EpilogueS8& epilogue)
      : low_(vdupq_n_f32(epilogue.low)),
        high_(vdupq_n_f32(epilogue.high)),
        zero_point_(vdupq_n_s16(static_cast<std::int16_t>(epilogue.zero_point))),
        type_(epilogue.type) {}

  /// Sends 4N accumulators through the epilogue and stores the first `count` at element `index` of `out`.
  template <int N, class Channels>
  [[gnu::always_inline]] void store(const int32x4_t* acc, const Channels& channels, void* out,
                                    std::size_t index, std::size_t count) const {
    auto* bytes = static_cast<std::uint8_t*>(out);
    uint8x16_t result[N];
    if (type_ == OutputType::u8 || type_ == OutputType::s8) {
      int32x4_t q[N];
      for (int n = 0; n < N; ++n) q[n] = quantize(scaled(acc[n], channels, n));
      narrow<N>(q, result);
      store_exactly<4 * N>(result, bytes + index, count);
    } else {
      for (int n = 0; n < N; ++n) {
        result[n] = type_ == OutputType::s32 ? vreinterpretq_u8_s32(vaddq_s32(acc[n], channels.bias(n)))
                                             : vreinterpretq_u8_f32(clamp(scaled(acc[n], channels, n)));
      }
      store_exactly<16 * N>(result, bytes + 4 * index, 4 * count);
    }
  }

 private:
  template <class Channels>
  [[gnu::always_inline]] static float32x4_t scaled(int32x4_t acc, const Channels& channels, int n) {
    return vmulq_f32(vcvtq_f32_s32(vaddq_s32(acc, channels.bias(n))), channels.scale(n));
  }

  /// min(max(value, low), high), yielding the bound for NaN and where both are zero: signed zeros are those
  /// of the scalar epilogue.
  [[gnu::always_inline]] float32x4_t clamp(float32x4_t value) const {
    value = vbslq_f32(vcgtq_f32(value, low_), value, low_);
    return vbslq_f32(vcltq_f32(value, high_), value, high_);
  }

  /// The nearest integer of the clamped value, where the sign of zero does not matter.
  [[gnu::always_inline]] int32x4_t quantize(float32x4_t value) const {
    return vcvtnq_s32_f32(vminnmq_f32(vmaxnmq_f32(value, low_), high_));
  }

  template <int N>
  [[gnu::always_inline]] void narrow(const int32x4_t* q, uint8x16_t* result) const {
    int8x16_t halves[N];  // the low bytes of eight s16 each
    for (int n = 0; n < N; n += 2) {
      const int16x8_t even = vreinterpretq_s16_s32(q[n]);
      const int16x8_t odd = vreinterpretq_s16_s32(q[n + 1 < N ? n + 1 : n]);
      halves[n / 2] = vreinterpretq_s8_s16(vaddq_s16(vuzp1q_s16(even, odd), zero_point_));
    }
    constexpr int kHalves = (N + 1) / 2;
    for (int n = 0; n < kHalves; n += 2) {
      result[n / 2] = vreinterpretq_u8_s8(vuzp1q_s8(halves[n], halves[n + 1 < kHalves ? n + 1 : n]));
    }
  }

  float32x4_t low_, high_;
  int16x8_t zero_point_;
  OutputType type_;
};

}  // namespace
}  // namespace gristmill
