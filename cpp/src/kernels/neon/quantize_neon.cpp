#include <arm_neon.h>

#include "quantize_kernels.h"

namespace gristmill {
namespace {

constexpr std::size_t kGroup = 16;

// The map of vector `at` of a group of sixteen: the same for all elements, or from a repeating sequence in
// which the group begins at `lane`.

struct Same {
  float32x4_t scale_, steps_, offset_;
  int32x4_t zero_point_;
  uint8x16_t flip;

  explicit Same(const Affine& map)
      : scale_(vdupq_n_f32(map.scale)),
        steps_(vdupq_n_f32(map.steps)),
        offset_(vdupq_n_f32(map.offset)),
        zero_point_(vdupq_n_s32(map.zero_point)),
        flip(vdupq_n_u8(map.flip)) {}

  static std::size_t lane(std::size_t) { return 0; }
  static std::size_t next(std::size_t) { return 0; }
  float32x4_t scale(std::size_t) const { return scale_; }
  float32x4_t steps(std::size_t) const { return steps_; }
  float32x4_t offset(std::size_t) const { return offset_; }
  int32x4_t zero_point(std::size_t) const { return zero_point_; }
};

struct Each {
  AffineLanes map;
  uint8x16_t flip;

  explicit Each(const AffineLanes& lanes) : map(lanes), flip(vdupq_n_u8(lanes.flip)) {}

  std::size_t lane(std::size_t i) const { return (map.first + i) % map.period; }
  std::size_t next(std::size_t lane) const {
    lane += kGroup;
    return lane < map.period ? lane : lane - map.period;
  }
  float32x4_t scale(std::size_t lane) const { return vld1q_f32(map.scale + lane); }
  float32x4_t steps(std::size_t lane) const { return vld1q_f32(map.steps + lane); }
  float32x4_t offset(std::size_t lane) const { return vld1q_f32(map.offset + lane); }
  int32x4_t zero_point(std::size_t lane) const { return vld1q_s32(map.zero_point + lane); }
};

/// Bytes of 16 integers, saturated to 0..255.
uint8x16_t pack_integers(const int32x4_t n[4]) {
  const int16x8_t low = vcombine_s16(vqmovn_s32(n[0]), vqmovn_s32(n[1]));
  const int16x8_t high = vcombine_s16(vqmovn_s32(n[2]), vqmovn_s32(n[3]));
  return vcombine_u8(vqmovun_s16(low), vqmovun_s16(high));
}

/// rne(v) + zero_point, for packing, NaN as -1024. maxnm prefers the number to a quiet NaN; v is the result
/// of arithmetic and therefore no signalling one.
template <class Map>
int32x4_t shift_rounded(float32x4_t v, const Map& map, std::size_t lane) {
  const float32x4_t cap = vdupq_n_f32(1024.0f), capped = vminnmq_f32(vmaxnmq_f32(v, vnegq_f32(cap)), cap);
  return vaddq_s32(vcvtnq_s32_f32(capped), map.zero_point(lane));
}

template <class Map>
uint8x16_t divide_group(const float* x, const Map& map, std::size_t lane) {
  int32x4_t n[4];
  for (std::size_t k = 0; k < 4; ++k)
    n[k] = shift_rounded(vdivq_f32(vld1q_f32(x + 4 * k), map.scale(lane + 4 * k)), map, lane + 4 * k);
  return pack_integers(n);
}

/// The exact-division identity of gristmill/quantize.h on one group: y = Y.
struct Quantize {
  template <class Map>
  static void group(const float* x, std::uint8_t* q, const Map& map, std::size_t lane) {
    int32x4_t n[4];
    uint32x4_t least = vdupq_n_u32(kFixedOne);
    for (std::size_t k = 0; k < 4; ++k) {
      const float32x4_t fixed =
          vfmaq_f32(map.offset(lane + 4 * k), vld1q_f32(x + 4 * k), map.steps(lane + 4 * k));
      const int32x4_t y = vcvtnq_s32_f32(fixed);
      least = vminq_u32(least, vandq_u32(vreinterpretq_u32_s32(y), vdupq_n_u32(kFixedOne - 1)));
      n[k] = vshrq_n_s32(y, 16);
    }
    const bool near_tie = vminvq_u32(least) < 2 * kTieMargin;
    vst1q_u8(q, veorq_u8(near_tie ? divide_group(x, map, lane) : pack_integers(n), map.flip));
  }
};

struct Requantize {
  template <class Map>
  static void group(const std::int32_t* acc, std::uint8_t* q, const Map& map, std::size_t lane) {
    int32x4_t n[4];
    for (std::size_t k = 0; k < 4; ++k) {
      const float32x4_t real = vcvtq_f32_s32(vld1q_s32(acc + 4 * k));
      n[k] = shift_rounded(vmulq_f32(real, map.scale(lane + 4 * k)), map, lane + 4 * k);
    }
    vst1q_u8(q, veorq_u8(pack_integers(n), map.flip));
  }
};

struct Dequantize {
  template <class Map>
  static void group(const std::uint8_t* q, float* x, const Map& map, std::size_t lane) {
    const uint8x16_t bytes = veorq_u8(vld1q_u8(q), map.flip);
    const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
    const uint32x4_t wide[4] = {vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low),
                                vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high)};
    for (std::size_t k = 0; k < 4; ++k) {
      const int32x4_t n = vsubq_s32(vreinterpretq_s32_u32(wide[k]), map.zero_point(lane + 4 * k));
      vst1q_f32(x + 4 * k, vmulq_f32(vcvtq_f32_s32(n), map.scale(lane + 4 * k)));
    }
  }
};

struct Rescale {
  template <class Map>
  static void group(const std::int32_t* acc, float* y, const Map& map, std::size_t lane) {
    for (std::size_t k = 0; k < 4; ++k)
      vst1q_f32(y + 4 * k, vmulq_f32(vcvtq_f32_s32(vld1q_s32(acc + 4 * k)), map.scale(lane + 4 * k)));
  }
};

/// Runs an operation over n elements in groups; the last group overlaps the one before. Fewer elements than a
/// group pass through a copy; kLaneOverrun lets them load their maps whole.
template <class Operation, class In, class Out, class Map>
void for_each_group(const In* in, Out* out, std::size_t n, const Map& map) {
  std::size_t i = 0, lane = map.lane(0);
  if (n < kGroup) {
    In whole_in[kGroup] = {};
    Out whole_out[kGroup];
    for (; i < n; ++i) whole_in[i] = in[i];
    Operation::group(whole_in, whole_out, map, lane);
    for (i = 0; i < n; ++i) out[i] = whole_out[i];
    return;
  }
  for (; i + kGroup <= n; i += kGroup, lane = map.next(lane)) Operation::group(in + i, out + i, map, lane);
  if (i < n) Operation::group(in + n - kGroup, out + n - kGroup, map, map.lane(n - kGroup));
}

template <class Operation, class In, class Out>
void run(const In* in, Out* out, std::size_t n, const Affine& map, bool) {
  for_each_group<Operation>(in, out, n, Same(map));
}

template <class Operation, class In, class Out>
void lanes(const In* in, Out* out, std::size_t n, const AffineLanes& map, bool) {
  for_each_group<Operation>(in, out, n, Each(map));
}

/// Extremes of a stream of vectors: fmin and fmax spread NaN.
struct Extremes {
  float32x4_t low = vdupq_n_f32(__builtin_inff()), high = vdupq_n_f32(-__builtin_inff());

  void take(float32x4_t x) {
    low = vminq_f32(low, x);
    high = vmaxq_f32(high, x);
  }
  void take(const Extremes& other) {
    low = vminq_f32(low, other.low);
    high = vmaxq_f32(high, other.high);
  }
};

void take_one(float x, float* low, float* high) {
  if (x < *low || x != x) *low = x;
  if (x > *high || x != x) *high = x;
}

void min_max_run(const float* x, std::size_t n, float* low, float* high) {
  std::size_t i = 0;
  if (n >= 4) {
    Extremes e[4];
    for (; i + kGroup <= n; i += kGroup)
      for (std::size_t k = 0; k < 4; ++k) e[k].take(vld1q_f32(x + i + 4 * k));
    for (; i + 4 <= n; i += 4) e[0].take(vld1q_f32(x + i));
    for (std::size_t k = 1; k < 4; ++k) e[0].take(e[k]);
    take_one(vminvq_f32(e[0].low), low, high);
    take_one(vmaxvq_f32(e[0].high), low, high);
  }
  for (; i < n; ++i) take_one(x[i], low, high);
}

void min_max_lanes(const float* x, std::size_t n, float* low, float* high) {
  std::size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const float32x4_t v = vld1q_f32(x + i);
    vst1q_f32(low + i, vminq_f32(vld1q_f32(low + i), v));
    vst1q_f32(high + i, vmaxq_f32(vld1q_f32(high + i), v));
  }
  for (; i < n; ++i) take_one(x[i], low + i, high + i);
}

}  // namespace

void install_quantize_neon(QuantizeKernels& slots) {
  slots.quantize_run = run<Quantize>;
  slots.quantize_lanes = lanes<Quantize>;
  slots.dequantize_run = run<Dequantize>;
  slots.dequantize_lanes = lanes<Dequantize>;
  slots.requantize_run = run<Requantize>;
  slots.requantize_lanes = lanes<Requantize>;
  slots.rescale_run = run<Rescale>;
  slots.rescale_lanes = lanes<Rescale>;
  slots.min_max_run = min_max_run;
  slots.min_max_lanes = min_max_lanes;
}

}  // namespace gristmill
