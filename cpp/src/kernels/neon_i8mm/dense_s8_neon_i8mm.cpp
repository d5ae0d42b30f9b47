#include "kernels/neon/dense_s8_neon.h"
#include "kernels/neon_dotprod/sdot_tile.h"

namespace gristmill {
namespace {

/// V vectors of lanes (or rows) in groups g and g + 1 of four K become 2V pairs of them in eight K:
///
///     g      a0..3 | b0..3 | c0..3 | d0..3        zip1   a0..3 a4..7 | b0..3 b4..7
///     g + 1  a4..7 | b4..7 | c4..7 | d4..7        zip2   c0..3 c4..7 | d0..3 d4..7
template <int V>
[[gnu::always_inline]] inline void load_pairs(const std::int8_t* even, const std::int8_t* odd,
                                              int8x16_t (&pairs)[2 * V]) {
  int32x4_t first[V], second[V];
  unroll<V>([&](auto v) GRISTMILL_INLINE { first[v] = vreinterpretq_s32_s8(vld1q_s8(even + 16 * v)); });
  unroll<V>([&](auto v) GRISTMILL_INLINE { second[v] = vreinterpretq_s32_s8(vld1q_s8(odd + 16 * v)); });
  unroll<V>([&](auto v) GRISTMILL_INLINE {
    pairs[2 * v] = vreinterpretq_s8_s32(vzip1q_s32(first[v], second[v]));
    pairs[2 * v + 1] = vreinterpretq_s8_s32(vzip2q_s32(first[v], second[v]));
  });
}

/// Eight K of 2P rows times 4N lanes. One instruction multiplies two rows of eight K by two lanes of eight K:
///
///     smmla acc.4s, (w0..7 | x0..7), (a0..7 | b0..7)     acc += w·a  w·b  x·a  x·b
///
/// acc[p][q] holds rows 2p, 2p + 1 of lanes 2q, 2q + 1.
template <int P, int N>
[[gnu::always_inline]] inline void smmla_step(int32x4_t (&acc)[P][2 * N], const std::int8_t* even_rows,
                                              const std::int8_t* odd_rows, const std::int8_t* even_lanes,
                                              const std::int8_t* odd_lanes) {
  constexpr int kRowVectors = (P + 1) / 2;
  int8x16_t rows[2 * kRowVectors], lanes[2 * N];
  load_pairs<kRowVectors>(even_rows, odd_rows, rows);
  load_pairs<N>(even_lanes, odd_lanes, lanes);
  unroll<2 * N>([&](auto q) GRISTMILL_INLINE {
    unroll<P>([&](auto p) GRISTMILL_INLINE { acc[p][q] = vmmlaq_s32(acc[p][q], rows[p], lanes[q]); });
  });
}

/// 2P rows of N vectors, in the blocks of sdot_tile.
template <int P, int N>
void smmla_tile(const std::int8_t* broadcast, const std::int8_t* lane, std::size_t groups,
                std::int32_t* sums) {
  constexpr std::size_t kRowStep = 4 * kSdotRows, kLaneStep = 4 * kSdotLanes;
  int32x4_t acc[P][2 * N];
  unroll<2 * P * N>([&](auto i) GRISTMILL_INLINE { acc[i / (2 * N)][i % (2 * N)] = vdupq_n_s32(0); });
  for (; groups >= 2; groups -= 2, broadcast += 2 * kRowStep, lane += 2 * kLaneStep) {
    smmla_step<P, N>(acc, broadcast, broadcast + kRowStep, lane, lane + kLaneStep);
  }
  if (groups != 0) {
    static constexpr std::int8_t kZeros[kLaneStep] = {};
    smmla_step<P, N>(acc, broadcast, kZeros, lane, kZeros);
  }
  unroll<P>([&](auto p) GRISTMILL_INLINE {
    unroll<N>([&](auto n) GRISTMILL_INLINE {
      const int64x2_t a = vreinterpretq_s64_s32(acc[p][2 * n]), b = vreinterpretq_s64_s32(acc[p][2 * n + 1]);
      vst1q_s32(sums + kSdotLanes * (2 * p) + 4 * n, vreinterpretq_s32_s64(vzip1q_s64(a, b)));
      vst1q_s32(sums + kSdotLanes * (2 * p + 1) + 4 * n, vreinterpretq_s32_s64(vzip2q_s64(a, b)));
    });
  });
}

/// Eight lanes, then the others: 16 sums, the rows and a pair of lanes leave registers to load ahead. The
/// sums of more lanes would spill.
template <int P, int N>
void split_tile(const std::int8_t* broadcast, const std::int8_t* lane, std::size_t groups,
                std::int32_t* sums) {
  smmla_tile<P, 2>(broadcast, lane, groups, sums);
  smmla_tile<P, N - 2>(broadcast, lane + 32, groups, sums + 8);
}

/// R rows of N vectors. Up to three rows SDOT is faster, because smmla pays for pairing the groups.
template <int R, int N>
constexpr TileS8Neon choose_tile() {
  if constexpr (R <= 3) {
    return sdot_tile<R, N>;
  } else if constexpr (N <= 2) {
    return smmla_tile<(R + 1) / 2, N>;
  } else {
    return split_tile<(R + 1) / 2, N>;
  }
}

template <int R, int N>
constexpr TileS8Neon kTile = choose_tile<R, N>();

struct Level {
  static constexpr std::size_t kRowBlock = kSdotRows, kLaneBlock = kSdotLanes;
  static constexpr TileS8Neon kTiles[kRowBlock][kLaneBlock / 4] = {
      {kTile<1, 1>, kTile<1, 2>, kTile<1, 3>, kTile<1, 4>},
      {kTile<2, 1>, kTile<2, 2>, kTile<2, 3>, kTile<2, 4>},
      {kTile<3, 1>, kTile<3, 2>, kTile<3, 3>, kTile<3, 4>},
      {kTile<4, 1>, kTile<4, 2>, kTile<4, 3>, kTile<4, 4>},
      {kTile<5, 1>, kTile<5, 2>, kTile<5, 3>, kTile<5, 4>},
      {kTile<6, 1>, kTile<6, 2>, kTile<6, 3>, kTile<6, 4>},
      {kTile<7, 1>, kTile<7, 2>, kTile<7, 3>, kTile<7, 4>},
      {kTile<8, 1>, kTile<8, 2>, kTile<8, 3>, kTile<8, 4>}};
};

}  // namespace

void install_dense_neon_i8mm(DenseKernels& slots) { install_dense_s8<Level>(slots); }

}  // namespace gristmill
