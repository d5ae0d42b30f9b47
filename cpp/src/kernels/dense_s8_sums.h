#pragma once

#include <cstddef>
#include <cstdint>

#include "dense_kernels.h"
#include "kernels/unroll.h"

/// What the dense int8 kernels add to the sums of a tile; `Level` is that of dense_s8_tiles.h.
namespace gristmill {
namespace {

/// The operands of a tile and where its outputs go. Channels count from the tile's first.
struct Tile {
  const std::uint8_t* broadcast;
  const std::uint8_t* lane;
  std::size_t groups;           ///< ceil(K / 4)
  const std::int32_t* offsets;  ///< of the tile's lanes or rows, null without
  const EpilogueS8& epilogue;
  std::size_t channel;
  void* out;
  std::size_t index, out_stride;  ///< in elements of `out`
  std::size_t rows, lanes;        ///< valid
  const std::uint8_t* single;     ///< the lanes that ride along, from lane `lanes` on; null without
  const std::int32_t* single_offsets;
  DenseCouples couples;   ///< from the tile's row block on
  const void* row_bytes;  ///< the level's RowBytes, null where they do not apply
};

/// Channels in rows: R rows x V vectors of lanes, and S lanes that ride along.
template <class Level, int R, int V, int S>
struct RowSums {
  using Vector = typename Level::Vector;
  using Bytes = typename Level::Bytes;
  static constexpr std::size_t kLane = std::size_t{Level::kWidth} * 4;  // bytes of a vector of lanes
  static constexpr std::size_t kGroup = Level::template kLaneVectors<ChannelAxis::rows> * kLane;
  static constexpr std::size_t kRows = Level::kRowBlock * 4;
  /// Weights that no cache near the core holds are fetched a page before their turn: the hardware foresees
  /// none beyond the end of a page.
  static constexpr std::size_t kFetchAhead = 4096;
  /// Bytes of lanes that the nearest cache keeps beside them.
  static constexpr std::size_t kNearLanes = 24 << 10;

  /// Where to fetch weights from. A pointer of which the compiler does not know what it comes from stays in a
  /// register of its own, and leaves short offsets to what is read from `weights`.
  [[gnu::always_inline]] static const std::uint8_t* fetched(const std::uint8_t* weights) {
    const std::uint8_t* ahead = weights + kFetchAhead;
    if constexpr (Level::kFetchesApart) __asm__("" : "+r"(ahead));
    return ahead;
  }

  /// The groups of K one after the other.
  [[gnu::always_inline]] static void add_groups(Vector (&sum)[R][V], Vector (&single)[S + 1],
                                                const std::uint8_t* weights, const std::uint8_t* lane,
                                                const std::uint8_t* single_lane, std::size_t groups) {
    using Activation = typename Level::Activation;
    const std::uint8_t* ahead = fetched(weights);
    for (; groups > 0; --groups, weights += kRows, lane += kGroup, ahead += kRows) {
      __builtin_prefetch(ahead);
      Activation x[V];
      unroll<V>([&](auto v) GRISTMILL_INLINE { x[v] = Activation(Level::load_bytes(lane + v * kLane)); });
      unroll<R>([&](auto r) GRISTMILL_INLINE {
        const Bytes w = Level::broadcast_group(weights + r * 4);
        unroll<V>([&](auto v) GRISTMILL_INLINE { sum[r][v] = x[v].multiply_add(w, sum[r][v]); });
      });
      if constexpr (S > 0) {
        const Bytes rows = Level::load_rows(weights);
        unroll<S>([&](auto s) GRISTMILL_INLINE {
          const Activation last(Level::broadcast_group(single_lane + 4 * s));
          single[s] = last.multiply_add(rows, single[s]);
        });
        single_lane += kGroup;
      }
    }
  }

  /// Whether, of that many lane blocks, the groups of couples should be fetched before their turn: their
  /// order is none that the hardware foresees.
  static bool is_far(std::size_t groups, std::size_t blocks) {
    return Level::kCouples && blocks * groups * kGroup > kNearLanes;
  }

  template <bool kFar>
  [[gnu::always_inline]] static void add_couples(Vector (&sum)[R][V], Vector (&single)[S + 1],
                                                 const Tile& tile) {
    const std::uint8_t* weights = tile.broadcast;
    const std::uint16_t* order = tile.couples.order;
    const std::uint8_t* ahead = fetched(weights);
    for (std::size_t c = tile.groups / 2; c > 0; --c, order += 2, weights += 2 * kRows, ahead += 2 * kRows) {
      __builtin_prefetch(ahead);
      const std::uint8_t* lane[2] = {tile.lane + order[0] * kGroup, tile.lane + order[1] * kGroup};
      if constexpr (kFar) {
        __builtin_prefetch(tile.lane + order[kGroupsAhead] * kGroup);
        __builtin_prefetch(tile.lane + order[kGroupsAhead + 1] * kGroup);
      }
      Bytes x[V][2];
      unroll<V>([&](auto v) GRISTMILL_INLINE {
        unroll<2>([&](auto i) GRISTMILL_INLINE { x[v][i] = Level::load_bytes(lane[i] + v * kLane); });
      });
      unroll<R>([&](auto r) GRISTMILL_INLINE {
        const Bytes w[2] = {Level::broadcast_group(weights + r * 4),
                            Level::broadcast_group(weights + kRows + r * 4)};
        unroll<V>([&](auto v) GRISTMILL_INLINE { sum[r][v] = Level::multiply_add_two(x[v], w, sum[r][v]); });
      });
      if constexpr (S > 0) {
        const std::uint8_t* from = tile.single;
        const Bytes rows[2] = {Level::load_rows(weights), Level::load_rows(weights + kRows)};
        unroll<S>([&](auto s) GRISTMILL_INLINE {
          const Bytes last[2] = {Level::broadcast_group(from + order[0] * kGroup + 4 * s),
                                 Level::broadcast_group(from + order[1] * kGroup + 4 * s)};
          single[s] = Level::multiply_add_two(last, rows, single[s]);
        });
      }
    }
    if (tile.groups % 2 != 0) {
      const std::size_t at = order[0] * kGroup;
      add_groups(sum, single, weights, tile.lane + at, S > 0 ? tile.single + at : nullptr, 1);
    }
  }

  /// All of K, but for the excess of couples.
  template <bool kFar>
  [[gnu::always_inline]] static void add_all(const Tile& tile, Vector (&sum)[R][V], Vector (&single)[S + 1]) {
    if constexpr (Level::kCouples)
      add_couples<kFar>(sum, single, tile);
    else
      add_groups(sum, single, tile.broadcast, tile.lane, tile.single, tile.groups);
  }

  [[gnu::always_inline]] static void add_excess(Vector (&sum)[R][V], Vector (&single)[S + 1],
                                                const Tile& tile) {
    const std::size_t first = tile.couples.start[0];
    std::size_t steps = tile.couples.start[1] - first;
    const std::uint32_t* group = tile.couples.excess_group + first * 2 * Level::kRowBlock;
    const auto* weights = static_cast<const std::uint8_t*>(tile.couples.excess_weights) + first * 2 * kRows;
    for (; steps > 0; --steps, group += 2 * Level::kRowBlock, weights += 2 * kRows) {
      unroll<R>([&](auto r) GRISTMILL_INLINE {
        const std::uint8_t* lane[2] = {tile.lane + group[r] * kGroup,
                                       tile.lane + group[Level::kRowBlock + r] * kGroup};
        const Bytes w[2] = {Level::broadcast_group(weights + r * 4),
                            Level::broadcast_group(weights + kRows + r * 4)};
        unroll<V>([&](auto v) GRISTMILL_INLINE {
          const Bytes x[2] = {Level::load_bytes(lane[0] + v * kLane), Level::load_bytes(lane[1] + v * kLane)};
          sum[r][v] = Level::multiply_add_two(x, w, sum[r][v]);
        });
      });
      if constexpr (S > 0) {
        const Bytes rows[2] = {Level::load_rows(weights), Level::load_rows(weights + kRows)};
        unroll<S>([&](auto s) GRISTMILL_INLINE {
          const std::uint8_t* from = tile.single + 4 * s;
          const Bytes last[2] = {Level::gather_groups(from, group, kGroup),
                                 Level::gather_groups(from, group + Level::kRowBlock, kGroup)};
          single[s] = Level::multiply_add_two(last, rows, single[s]);
        });
      }
    }
  }
};

template <class Level, int R, int V, int S, bool kFar>
[[gnu::always_inline]] inline void add_rows(const Tile& tile, typename Level::Vector (&sum)[R][V],
                                            typename Level::Vector (&single)[S + 1]) {
  using Sums = RowSums<Level, R, V, S>;
  Sums::template add_all<kFar>(tile, sum, single);
  if constexpr (Level::kCouples) Sums::add_excess(sum, single, tile);
}

/// What a row of a block has in excess, for two lane blocks. Steps of rows that have fewer than others end in
/// zeros.
template <class Level, std::size_t N>
[[gnu::always_inline]] inline void add_row_excess(const DenseCouples& couples, int row,
                                                  const std::uint8_t* const (&lane)[2],
                                                  typename Level::Vector (&sums)[N]) {
  constexpr std::size_t kLane = std::size_t{Level::kWidth} * 4, V = N / 2, kGroup = V * kLane;
  constexpr std::size_t kRows = Level::kRowBlock;
  const std::size_t first = couples.start[0];
  std::size_t steps = couples.start[1] - first;
  if (steps == 0) return;
  const std::uint32_t* group = couples.excess_group + first * 2 * kRows + row;
  const auto* weights =
      static_cast<const std::uint8_t*>(couples.excess_weights) + (first * 2 * kRows + row) * 4;
  typename Level::Vector sum[N];
  unroll<N>([&](auto n) GRISTMILL_INLINE { sum[n] = sums[n]; });
  for (; steps > 0; --steps, group += 2 * kRows, weights += 8 * kRows) {
    std::int32_t any;
    __builtin_memcpy(&any, weights, 4);
    if (any == 0) break;
    const std::size_t at[2] = {group[0] * kGroup, group[kRows] * kGroup};
    const typename Level::Bytes w[2] = {Level::broadcast_group(weights),
                                        Level::broadcast_group(weights + 4 * kRows)};
    unroll<N>([&](auto n) GRISTMILL_INLINE {
      const std::uint8_t* from = lane[n / V] + n % V * kLane;
      const typename Level::Bytes x[2] = {Level::load_bytes(from + at[0]), Level::load_bytes(from + at[1])};
      sum[n] = Level::multiply_add_two(x, w, sum[n]);
    });
  }
  unroll<N>([&](auto n) GRISTMILL_INLINE { sums[n] = sum[n]; });
}

/// Channels in lanes: R rows x V vectors, of one lane block or several.
template <class Level, int R, int V>
[[gnu::always_inline]] inline void add_lanes(const Tile& tile, typename Level::Vector (&sum)[R][V]) {
  constexpr int kBlockVectors = Level::template kLaneVectors<ChannelAxis::lanes>;
  constexpr std::size_t kLane = std::size_t{Level::kWidth} * 4, kGroup = kBlockVectors * kLane;
  const std::uint8_t* broadcast = tile.broadcast;
  const std::uint8_t* lane = tile.lane;
  const std::size_t row_step = tile.groups * 4, block_step = tile.groups * kGroup;
  for (std::size_t g = tile.groups; g > 0; --g, broadcast += 4, lane += kGroup) {
    typename Level::Bytes weights[V];
    unroll<V>([&](auto v) GRISTMILL_INLINE {
      weights[v] = Level::load_bytes(lane + v / kBlockVectors * block_step + v % kBlockVectors * kLane);
    });
    unroll<R>([&](auto r) GRISTMILL_INLINE {
      const typename Level::Activation x(Level::broadcast_group(broadcast + r * row_step));
      unroll<V>([&](auto v) GRISTMILL_INLINE { sum[r][v] = x.multiply_add(weights[v], sum[r][v]); });
    });
  }
}

}  // namespace
}  // namespace gristmill
