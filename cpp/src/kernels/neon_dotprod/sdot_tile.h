#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/unroll.h"

/// The register tile of the levels that have SDOT: R rows of N vectors of four lanes, in blocks of 8 rows and
/// 16 lanes. R * N <= 24 leaves registers for the operands. One instruction multiplies the groups of four
/// lanes by one group of one row:
///
///     lane vector   a0 a1 a2 a3 | b0 b1 b2 b3 | c0 c1 c2 c3 | d0 d1 d2 d3      lanes a, b, c, d
///     row vector    w0 w1 w2 w3 | x0 x1 x2 x3 | y0 y1 y2 y3 | z0 z1 z2 z3      rows  w, x, y, z
///
///     sdot acc.4s, lane.16b, row.4b[1]     acc += a·x  b·x  c·x  d·x
namespace gristmill {
namespace {

constexpr std::size_t kSdotRows = 8;
constexpr std::size_t kSdotLanes = 16;

template <int R, int N>
void sdot_tile(const std::int8_t* broadcast, const std::int8_t* lane, std::size_t groups,
               std::int32_t* sums) {
  int32x4_t acc[R][N];
  unroll<R * N>([&](auto i) GRISTMILL_INLINE { acc[i / N][i % N] = vdupq_n_s32(0); });
  for (; groups != 0; --groups, broadcast += 4 * kSdotRows, lane += 4 * kSdotLanes) {
    int8x16_t lanes[N], rows[(R + 3) / 4];
    unroll<N>([&](auto n) GRISTMILL_INLINE { lanes[n] = vld1q_s8(lane + 16 * n); });
    unroll<(R + 3) / 4>([&](auto q) GRISTMILL_INLINE { rows[q] = vld1q_s8(broadcast + 16 * q); });
    unroll<R>([&](auto r) GRISTMILL_INLINE {
      unroll<N>([&](auto n) GRISTMILL_INLINE {
        acc[r][n] = vdotq_laneq_s32(acc[r][n], lanes[n], rows[r / 4], r.value % 4);
      });
    });
  }
  unroll<R * N>([&](auto i) GRISTMILL_INLINE {
    vst1q_s32(sums + kSdotLanes * (i / N) + 4 * (i % N), acc[i / N][i % N]);
  });
}

}  // namespace
}  // namespace gristmill
