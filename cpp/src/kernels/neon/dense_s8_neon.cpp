#include "kernels/neon/dense_s8_neon.h"

#include "kernels/unroll.h"

namespace gristmill {
namespace {

constexpr std::size_t kRows = 4;
constexpr std::size_t kLanes = 8;

/// One row times N vectors of four lanes, two groups of K at a time. |activation| <= 128 and |weight| <= 127,
/// so two products, and no more, fit a 16-bit sum: 2 * 128 * 127 = 32512.
///
///     lane vector, group g     a0 a1 a2 a3 | b0 b1 b2 b3 | c0 c1 c2 c3 | d0 d1 d2 d3      lanes a, b, c, d
///     row, replicated          w0 w1 w2 w3 | w0 w1 w2 w3 | w0 w1 w2 w3 | w0 w1 w2 w3
///
///     smull   low half    a0w0       a1w1       a2w2       a3w3       b0w0       b1w1       ...     s16x8
///     smlal   g + 1     + a4w4     + a5w5     + a6w6     + a7w7     + b4w4     + b5w5       ...
///     sadalp  pairs       `--- a ----'          `--- a ----'          `--- b ----'          ...     s32x4
///
/// smull2 and smlal2 do the same for lanes c and d. At the end one addp joins the halves of each lane:
///
///     addp (a a' b b') (c c' d d')  ->  a b c d
/// The steps of a row's 2N half vectors alternate, for processors that execute in order.
template <int R, int N>
[[gnu::always_inline]] inline void add_groups(int32x4_t (&acc)[R][2 * N], const std::int8_t* row_even,
                                              const std::int8_t* row_odd, const std::int8_t* lane_even,
                                              const std::int8_t* lane_odd) {
  int8x16_t lanes_even[N], lanes_odd[N];
  unroll<N>([&](auto n) GRISTMILL_INLINE { lanes_even[n] = vld1q_s8(lane_even + 16 * n); });
  unroll<N>([&](auto n) GRISTMILL_INLINE { lanes_odd[n] = vld1q_s8(lane_odd + 16 * n); });
  const int32x4_t rows_even = vreinterpretq_s32_s8(vld1q_s8(row_even));
  const int32x4_t rows_odd = vreinterpretq_s32_s8(vld1q_s8(row_odd));
  unroll<R>([&](auto r) GRISTMILL_INLINE {
    const int8x16_t even = vreinterpretq_s8_s32(vdupq_laneq_s32(rows_even, r.value));
    const int8x16_t odd = vreinterpretq_s8_s32(vdupq_laneq_s32(rows_odd, r.value));
    int16x8_t low[N], high[N];
    unroll<N>([&](auto n) GRISTMILL_INLINE {
      low[n] = vmull_s8(vget_low_s8(lanes_even[n]), vget_low_s8(even));
      high[n] = vmull_high_s8(lanes_even[n], even);
    });
    unroll<N>([&](auto n) GRISTMILL_INLINE {
      low[n] = vmlal_s8(low[n], vget_low_s8(lanes_odd[n]), vget_low_s8(odd));
      high[n] = vmlal_high_s8(high[n], lanes_odd[n], odd);
    });
    unroll<N>([&](auto n) GRISTMILL_INLINE {
      acc[r][2 * n] = vpadalq_s16(acc[r][2 * n], low[n]);
      acc[r][2 * n + 1] = vpadalq_s16(acc[r][2 * n + 1], high[n]);
    });
  });
}

template <int R, int N>
void tile(const std::int8_t* broadcast, const std::int8_t* lane, std::size_t groups, std::int32_t* sums) {
  constexpr std::size_t kRowStep = 4 * kRows, kLaneStep = 4 * kLanes;
  int32x4_t acc[R][2 * N];  // lanes 0 and 1, then 2 and 3, of each vector
  unroll<2 * R * N>([&](auto i) GRISTMILL_INLINE { acc[i / (2 * N)][i % (2 * N)] = vdupq_n_s32(0); });
  for (; groups >= 2; groups -= 2, broadcast += 2 * kRowStep, lane += 2 * kLaneStep) {
    add_groups<R, N>(acc, broadcast, broadcast + kRowStep, lane, lane + kLaneStep);
  }
  if (groups != 0) {
    static constexpr std::int8_t kZeros[kLaneStep] = {};
    add_groups<R, N>(acc, broadcast, kZeros, lane, kZeros);
  }
  unroll<R>([&](auto r) GRISTMILL_INLINE {
    unroll<N>([&](auto n) GRISTMILL_INLINE {
      vst1q_s32(sums + kLanes * r + 4 * n, vpaddq_s32(acc[r][2 * n], acc[r][2 * n + 1]));
    });
  });
}

struct Level {
  static constexpr std::size_t kRowBlock = kRows, kLaneBlock = kLanes;
  static constexpr TileS8Neon kTiles[kRows][kLanes / 4] = {
      {tile<1, 1>, tile<1, 2>}, {tile<2, 1>, tile<2, 2>}, {tile<3, 1>, tile<3, 2>}, {tile<4, 1>, tile<4, 2>}};
};

}  // namespace

void install_dense_s8_neon(DenseKernels& slots) { install_dense_s8<Level>(slots); }

}  // namespace gristmill
