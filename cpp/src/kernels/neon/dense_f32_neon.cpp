#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "dense_kernels.h"
#include "kernels/dense_f32_tiles.h"

namespace gristmill {
namespace {

struct F32x4 {
  using Vector = float32x4_t;
  static constexpr int kWidth = 4;
  static Vector zero() { return vdupq_n_f32(0); }
  static Vector load(const float* from) { return vld1q_f32(from); }
  static Vector load_first(const float* from, std::size_t n) {
    Vector x = zero();
    if (n > 0) x = vld1q_lane_f32(from, x, 0);
    if (n > 1) x = vld1q_lane_f32(from + 1, x, 1);
    if (n > 2) x = vld1q_lane_f32(from + 2, x, 2);
    if (n > 3) x = vld1q_lane_f32(from + 3, x, 3);
    return x;
  }
  static void store(float* to, Vector x) { vst1q_f32(to, x); }
  static void store_first(float* to, Vector x, std::size_t n) {
    if (n > 0) vst1q_lane_f32(to, x, 0);
    if (n > 1) vst1q_lane_f32(to + 1, x, 1);
    if (n > 2) vst1q_lane_f32(to + 2, x, 2);
    if (n > 3) vst1q_lane_f32(to + 3, x, 3);
  }
  static Vector broadcast(const float* from) { return vld1q_dup_f32(from); }
  static Vector fma(Vector a, Vector b, Vector sum) { return vfmaq_f32(sum, a, b); }
  static Vector add(Vector a, Vector b) { return vaddq_f32(a, b); }
  /// Comparing and selecting leaves NaN and the sign of zero alone.
  static Vector raise(Vector x, Vector low) { return vbslq_f32(vcltq_f32(x, low), low, x); }
  static Vector lower(Vector x, Vector high) { return vbslq_f32(vcgtq_f32(x, high), high, x); }
};

/// 8 x 12: 24 sums, three vectors of lanes and two of rows, whose elements the multiplications pick, fit 32
/// registers, and five loads feed 24 multiplications.
struct Neon {
  using Simd = F32x4;
  using RowSimd = F32x4;
  static constexpr int kRowBlock = 8;
  static constexpr int kLaneVectors = 3;
  static constexpr int kSums = 24;
  static constexpr std::size_t kDepth = 320;
  static constexpr std::size_t kDepthInPlace = 320;
  static constexpr std::size_t kNearDepth = 192, kFarDepth = 256;
  static constexpr bool kCopies = false;
  static constexpr bool kFollowsRows = false;
  static constexpr std::size_t kChunkBytes = 128 * 1024;
  static constexpr bool kBroadcastsMemory = false;

  struct Rows {
    float32x4_t low, high;
    Rows(const float* from, std::size_t) : low(vld1q_f32(from)), high(vld1q_f32(from + 4)) {}
    template <int r>
    float32x4_t fma(float32x4_t lanes, float32x4_t sum) const {
      if constexpr (r < 4)
        return vfmaq_laneq_f32(sum, lanes, low, r);
      else
        return vfmaq_laneq_f32(sum, lanes, high, r - 4);
    }
  };
};

}  // namespace

void install_dense_f32_neon(DenseKernels& slots) {
  slots.f32_channels_in_rows = DenseF32<Neon, ChannelAxis::rows>::kernel();
  slots.f32_channels_in_lanes = DenseF32<Neon, ChannelAxis::lanes>::kernel();
}

}  // namespace gristmill
