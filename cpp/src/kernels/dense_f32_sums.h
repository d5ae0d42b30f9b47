#pragma once

#include <cstddef>

#include "dense_kernels.h"
#include "kernels/clamp_sums.h"
#include "kernels/unroll.h"

/// The tiles of dense_f32_tiles.h, which says what they cover and what a level is.
namespace gristmill {
namespace {

/// A tile's operands: `depth` of K for the rows and lanes from (0, 0) of `out` on.
struct Slice {
  const float* broadcast;
  const float* lane;
  std::size_t depth;
  std::size_t row_step, lane_step;  ///< floats from one block of rows, or row, and of lanes to the next
  std::size_t lane_k_step;          ///< floats of the lane operand from one k to the next
  std::size_t lane_ahead;           ///< floats to lanes of the same k that will be needed later
  bool first, last;                 ///< whether sums start at zero, and whether they end in the epilogue
  const EpilogueF32& epilogue;
  const float* bias;
  const float* residual;  ///< null without, and before the last slice
  float* out;
  std::size_t out_stride;
  float* copy;  ///< for lanes that are copied, [depth][lane block]
};

template <class Level, ChannelAxis axis>
struct Tiles {
  using Simd = typename Level::Simd;
  using Vector = typename Simd::Vector;
  using RowSimd = typename Level::RowSimd;
  using RowVector = typename RowSimd::Vector;
  static constexpr int kWidth = Simd::kWidth;
  static constexpr int kRowBlock = Level::kRowBlock;
  static constexpr int kLaneBlock = Level::kLaneVectors * kWidth;
  static constexpr bool kCopies = Level::kCopies && axis == ChannelAxis::rows;
  static constexpr bool kPlainRows = axis == ChannelAxis::lanes && Level::kBroadcastsMemory;
  /// Floats of the broadcast operand from one k to the next.
  static constexpr int kBroadcastStep = kPlainRows ? 1 : kRowBlock;
  /// Whether the next block of rows most likely follows. Of weights it comes from a cache far away, and is
  /// too short a stretch of memory for the hardware to see it coming.
  template <int R>
  static constexpr bool kFollowed = (axis == ChannelAxis::rows) && R == kRowBlock;
  /// Vectors that hold the rows of a block, the last one perhaps in part.
  static constexpr int kRowVectors = (kRowBlock + RowSimd::kWidth - 1) / RowSimd::kWidth;
  static constexpr int kColumn = kRowVectors * RowSimd::kWidth;
  static constexpr int kLastRows = kRowBlock - kColumn + RowSimd::kWidth;

  /// A last vector of all its lanes.
  static constexpr Index<kWidth> kWhole{};

  /// R rows x B lane blocks of V vectors, the last vector with `last_lanes` lanes; B > 1 takes whole blocks.
  /// S = 1 adds the first lane of the next block. `copies` stores the lanes, of one block, in slice.copy.
  template <int R, int V, int B, int S, bool copies = false, class Lanes>
  [[gnu::noinline]] static void lane_tile(const Slice& slice, Lanes last_lanes) {
    constexpr int N = V * B;
    const bool whole = last_lanes == kWidth;
    const auto load = [&](const float* from, int n) {
      return n + 1 < N || whole ? Simd::load(from) : Simd::load_first(from, last_lanes);
    };
    if (slice.residual != nullptr) prefetch_residual<R, N>(slice);
    RowVector single[1][1][kRowVectors];
    if constexpr (S == 1) load_columns<1, 1>(slice, N * kWidth, R, single);
    Vector sum[R][N];
    unroll<R>([&](auto r) {
      unroll<N>([&](auto n) {
        sum[r][n] = slice.first ? Simd::zero() : load(slice.out + r * slice.out_stride + n * kWidth, n);
      });
    });
    accumulate<R, V, B, S, copies>(slice, sum, single);
    float column[kColumn];
    if constexpr (S == 1) {
      unroll<kRowVectors>([&](auto q) { RowSimd::store(column + q * RowSimd::kWidth, single[0][0][q]); });
    }
    store_lanes<R, N>(slice, sum, load, last_lanes);
    if constexpr (S == 1) write_columns(slice, N * kWidth, R, 1, 1, column);
  }

  /// G row blocks x T lanes, `rows` of the blocks' rows valid.
  template <int G, int T>
  [[gnu::noinline]] static void row_tile(const Slice& slice, std::size_t rows) {
    RowVector sum[T][G][kRowVectors];
    load_columns<G, T>(slice, 0, rows, sum);
    const float* broadcast = slice.broadcast;
    const float* lane = slice.lane;
    for (std::size_t k = slice.depth; k > 1; --k, broadcast += kRowBlock, lane += slice.lane_k_step)
      multiply_columns<G, T, false>(slice, broadcast, lane, sum);
    if (slice.depth != 0) multiply_columns<G, T, true>(slice, broadcast, lane, sum);
    store_columns<G, T>(slice, 0, rows, sum);
  }

 private:
  template <int R, int V, int B, int S, bool copies>
  [[gnu::always_inline]] static void accumulate(const Slice& slice, Vector (&sum)[R][V * B],
                                                RowVector (&single)[1][1][kRowVectors]) {
    const float* broadcast = slice.broadcast;
    const float* lane = slice.lane;
    [[maybe_unused]] float* copy = slice.copy;
    const std::size_t lane_k_step = slice.lane_k_step;
    // The end of a short loop is foreseen, that of a long one is not.
#pragma GCC unroll 4
    for (std::size_t k = slice.depth; k > S; --k, broadcast += kBroadcastStep, lane += lane_k_step) {
      if constexpr (kFollowed<R>) {
        __builtin_prefetch(broadcast + slice.row_step);
        if constexpr (!kCopies) __builtin_prefetch(lane + slice.lane_ahead);
      } else if constexpr (axis == ChannelAxis::lanes && B == 1) {
        prefetch_lanes(lane);
      }
      if constexpr (copies) {
        __builtin_prefetch(lane + 2 * kLaneBlock - 1);
        unroll<V>([&](auto v) { Simd::store(copy + v * kWidth, Simd::load(lane + v * kWidth)); });
        copy += kLaneBlock;
      }
      multiply_lanes<R, V, B>(slice, broadcast, lane, sum);
      if constexpr (S == 1)
        multiply_columns<1, 1, false>(slice, broadcast, lane + B * slice.lane_step, single);
    }
    if constexpr (S == 1) {
      if (slice.depth == 0) return;
      multiply_lanes<R, V, B>(slice, broadcast, lane, sum);
      multiply_columns<1, 1, true>(slice, broadcast, lane + B * slice.lane_step, single);
    }
  }

  /// A single stream of weights from the last cache outruns the hardware's prefetching; several do not.
  [[gnu::always_inline]] static void prefetch_lanes(const float* lane) {
    constexpr int kLine = 64 / sizeof(float), kAhead = 64 * kLine;
    unroll<(kLaneBlock + kLine - 1) / kLine>([&](auto i) { __builtin_prefetch(lane + kAhead + i * kLine); });
  }

  /// Adds one k of the lane tile, keeping its shorter side in registers and loading the other as it goes.
  template <int R, int V, int B>
  [[gnu::always_inline]] static void multiply_lanes(const Slice& slice, const float* broadcast,
                                                    const float* lane, Vector (&sum)[R][V * B]) {
    constexpr int N = V * B;
    const typename Level::Rows rows{broadcast, kPlainRows ? slice.row_step : 1};
    const auto x = [&](int n) { return Simd::load(lane + n / V * slice.lane_step + n % V * kWidth); };
    if constexpr (R < N) {
      unroll<N>([&](auto n) {
        const Vector lanes = x(n);
        unroll<R>([&](auto r) { sum[r][n] = rows.template fma<r>(lanes, sum[r][n]); });
      });
    } else {
      Vector lanes[N];
      unroll<N>([&](auto n) { lanes[n] = x(n); });
      unroll<R>(
          [&](auto r) { unroll<N>([&](auto n) { sum[r][n] = rows.template fma<r>(lanes[n], sum[r][n]); }); });
    }
  }

  /// It was last used long ago.
  template <int R, int N>
  [[gnu::always_inline]] static void prefetch_residual(const Slice& slice) {
    unroll<R>([&](auto r) {
      unroll<N>([&](auto n) { __builtin_prefetch(slice.residual + r * slice.out_stride + n * kWidth); });
    });
  }

  template <int R, int N, class Load>
  [[gnu::always_inline]] static void add_residual(const Slice& slice, Vector (&sum)[R][N], Load load) {
    unroll<R>([&](auto r) {
      unroll<N>([&](auto n) {
        const Vector residual = load(slice.residual + r * slice.out_stride + n * kWidth, n);
        sum[r][n] = Simd::add(sum[r][n], residual);
      });
    });
    clamp_sums<Simd>(sum, slice.epilogue.sum_low, slice.epilogue.sum_high);
  }

  template <int R, int N, class Load, class Lanes>
  [[gnu::always_inline]] static void store_lanes(const Slice& slice, Vector (&sum)[R][N], Load load,
                                                 Lanes last_lanes) {
    if (slice.last) {
      const EpilogueF32& epilogue = slice.epilogue;
      if constexpr (axis == ChannelAxis::rows) {
        unroll<R>([&](auto r) {
          const Vector bias = Simd::broadcast(slice.bias + r);
          unroll<N>([&](auto n) { sum[r][n] = Simd::add(sum[r][n], bias); });
        });
      } else {
        unroll<N>([&](auto n) {
          const Vector bias = load(slice.bias + n * kWidth, n);
          unroll<R>([&](auto r) { sum[r][n] = Simd::add(sum[r][n], bias); });
        });
      }
      clamp_sums<Simd>(sum, epilogue.low, epilogue.high);
    }
    if (slice.residual != nullptr) add_residual<R, N>(slice, sum, load);
    float* const first = slice.out;
    const std::size_t stride = slice.out_stride;
    unroll<R>([&](auto r) {
      float* out = first + r * stride;
      unroll<N - 1>([&](auto n) { Simd::store(out + n * kWidth, sum[r][n]); });
      float* end = out + (N - 1) * kWidth;
      last_lanes == kWidth ? Simd::store(end, sum[r][N - 1])
                           : Simd::store_first(end, sum[r][N - 1], last_lanes);
    });
  }

  /// Adds one k of G row blocks to the sums of T lanes. The last vector of a block may reach beyond it into
  /// the next k, except at the last k.
  template <int G, int T, bool last_k>
  [[gnu::always_inline]] static void multiply_columns(const Slice& slice, const float* broadcast,
                                                      const float* lane,
                                                      RowVector (&sum)[T][G][kRowVectors]) {
    RowVector lanes[T];
    unroll<T>([&](auto t) { lanes[t] = RowSimd::broadcast(lane + t); });
    unroll<G>([&](auto g) {
      unroll<kRowVectors>([&](auto q) {
        constexpr bool partly = last_k && q + 1 == kRowVectors && kLastRows < RowSimd::kWidth;
        const float* from = broadcast + g * slice.row_step + q * RowSimd::kWidth;
        const RowVector rows = partly ? RowSimd::load_first(from, kLastRows) : RowSimd::load(from);
        unroll<T>([&](auto t) { sum[t][g][q] = RowSimd::fma(rows, lanes[t], sum[t][g][q]); });
      });
    });
  }

  /// The sums of T lanes from `lane` on, as they were left by the slice before.
  template <int G, int T>
  [[gnu::always_inline]] static void load_columns(const Slice& slice, std::size_t lane, std::size_t rows,
                                                  RowVector (&sum)[T][G][kRowVectors]) {
    float columns[T][G][kColumn] = {};
    if (!slice.first) read_columns(slice, lane, rows, G, T, &columns[0][0][0]);
    unroll<T * G * kRowVectors>(
        [&](auto i) { (&sum[0][0][0])[i] = RowSimd::load(&columns[0][0][0] + i * RowSimd::kWidth); });
  }

  template <int G, int T>
  [[gnu::always_inline]] static void store_columns(const Slice& slice, std::size_t lane, std::size_t rows,
                                                   const RowVector (&sum)[T][G][kRowVectors]) {
    float columns[T][G][kColumn];
    unroll<T * G * kRowVectors>(
        [&](auto i) { RowSimd::store(&columns[0][0][0] + i * RowSimd::kWidth, (&sum[0][0][0])[i]); });
    write_columns(slice, lane, rows, G, T, &columns[0][0][0]);
  }

  [[gnu::noinline]] static void read_columns(const Slice& slice, std::size_t lane, std::size_t rows,
                                             std::size_t blocks, std::size_t lanes, float* columns) {
    for (std::size_t t = 0; t < lanes; ++t, columns += blocks * kColumn) {
      const float* out = slice.out + lane + t;
      for (std::size_t r = 0; r < rows; ++r)
        columns[r / kRowBlock * kColumn + r % kRowBlock] = out[r * slice.out_stride];
    }
  }

  [[gnu::noinline]] static void write_columns(const Slice& slice, std::size_t lane, std::size_t rows,
                                              std::size_t blocks, std::size_t lanes, const float* columns) {
    for (std::size_t t = 0; t < lanes; ++t, columns += blocks * kColumn) {
      float* out = slice.out + lane + t;
      for (std::size_t r = 0; r < rows; ++r) {
        const float sum = columns[r / kRowBlock * kColumn + r % kRowBlock];
        out[r * slice.out_stride] = slice.last ? finished(sum, slice, r, lane + t) : sum;
      }
    }
  }

  static float finished(float sum, const Slice& slice, std::size_t row, std::size_t lane) {
    const EpilogueF32& epilogue = slice.epilogue;
    const float value =
        clamp(sum + slice.bias[axis == ChannelAxis::rows ? row : lane], epilogue.low, epilogue.high);
    if (slice.residual == nullptr) return value;
    return clamp(value + slice.residual[row * slice.out_stride + lane], epilogue.sum_low, epilogue.sum_high);
  }

  static float clamp(float value, float low, float high) {
    value = value < low ? low : value;
    return value > high ? high : value;
  }
};

}  // namespace
}  // namespace gristmill
