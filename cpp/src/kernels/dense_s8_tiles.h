#pragma once

#include <cstddef>
#include <cstdint>

#include "dense_kernels.h"
#include "kernels/dense_s8_sums.h"
#include "kernels/unroll.h"

/// The dense int8 kernels of the x86 levels, as templates over the level's vectors.
///
/// Everything is in an unnamed namespace: each kernel file that includes this header has copies of its own,
/// compiled with its own flags. `Level` names
///
///     Vector          s32 accumulators, kWidth of them; zero, add, load, load_all (one s32 in every element)
///     Epilogue, OneChannel, ManyChannels<N>    the level's int8 epilogue
///     Bytes           a vector of bytes; load_bytes, broadcast_group (four bytes in every element),
///                     load_rows (one group of a row block, at most a vector, and zeros)
///     Activation      what the products need of activations: Activation(bytes).multiply_add(weights, sum)
///     kRowBlock                                rows of a block where channels are in rows; else it is 1
///     Blocks<axis>::kLaneVectors               lane blocks: kLaneVectors * kWidth lanes
///     kMostSingles                             channels in rows: lanes that may ride along
///     kTileRows, kTileSums                     channels in lanes: most rows and most vectors of sums
///     kOffset         whether sums start at an offset that depends on the activations alone, and then
///                     lane_offsets, row_offset: those of a lane block, or that of a row
///     RowBytes        channels in rows: stores two whole rows of bytes where it applies; and with kPairs
///                     one of two lane blocks
///     kPairs          channels in rows: whether two lane blocks are multiplied by a row block in turn
///     kFetchesApart   whether weights are fetched by a pointer of their own
///     kCouples        channels in rows: whether weights are DenseCouples, and then
///                     multiply_add_two: the products of two groups at once
///                     gather_groups: a group of each row's own, `step` bytes apart, as load_rows has them
///
/// Channels in rows: tiles of kRowBlock rows x one lane block. The lane block is packed activations and stays
/// in the cache nearest to the core while the weights stream past it.
///
/// A few single lanes beyond whole vectors, as of planes of 7 x 7 or 14 x 14, ride along with the last lane
/// block: the sums of each are one vector with the rows in its elements.
///
/// Channels in lanes: tiles of kTileRows rows x one lane block, or of fewer rows and more lane blocks, for
/// the activations are the broadcast operand and what is derived of them should serve many lanes; and a batch
/// of one should have enough sums in flight to run at the bandwidth of the weights.
///
/// The last tile of either side takes as few vectors as hold its outputs, and as few rows, of packed weights
/// in powers of two: their rows beyond the last, zeros, are multiplied and not stored.
namespace gristmill {
namespace {

constexpr std::size_t smaller(std::size_t a, std::size_t b) { return a < b ? a : b; }

template <class Level, ChannelAxis axis>
class DenseS8 {
 public:
  static constexpr DenseKernel kernel() { return {kRowBlock, kLaneBlock, multiply}; }

 private:
  static void multiply(const DenseJob& job) {
    if (job.rows == 0 || job.lanes == 0) return;
    if constexpr (axis == ChannelAxis::rows) {
      DenseS8(job).lanes_then_rows();
    } else {
      DenseS8(job).rows_then_lanes();
    }
  }

  using Vector = typename Level::Vector;
  static constexpr int kWidth = Level::kWidth;
  static constexpr int kBlockVectors = Level::template kLaneVectors<axis>;
  static constexpr std::size_t kRowBlock = axis == ChannelAxis::rows ? Level::kRowBlock : 1;
  static constexpr std::size_t kLaneBlock = kBlockVectors * kWidth;
  /// Rows whose offsets are kept, and past which the weights stream.
  static constexpr std::size_t kRowChunk = 16 * Level::kTileRows;

  explicit DenseS8(const DenseJob& job) : job_(job), groups_((job.k + 3) / 4) {}

  void lanes_then_rows() const {
    const std::size_t rest = job_.lanes % kWidth;
    const std::size_t singles = job_.lanes > kWidth && rest <= Level::kMostSingles ? rest : 0;
    const std::size_t end = job_.lanes - singles;
    const auto& epilogue = *static_cast<const EpilogueS8*>(job_.epilogue);
    const typename Level::RowBytes row_bytes(epilogue);
    const bool row_bytes_applies = Level::RowBytes::applies_to_all(epilogue);
    std::size_t lane = 0;
    if constexpr (Level::kPairs) {
      const std::size_t alone = singles != 0 ? 1 : 0;  // the last lane, with which those ride along
      const bool far = RowSums<Level, kRowBlock, kBlockVectors, 0>::is_far(groups_, 2);
      if (row_bytes_applies && job_.rows % kRowBlock == 0) {
        for (; lane + 2 * kLaneBlock + alone <= end; lane += 2 * kLaneBlock)
          far ? multiply_pair<true>(lane, row_bytes) : multiply_pair<false>(lane, row_bytes);
      }
    }
    for (; lane < end; lane += kLaneBlock) {
      std::int32_t offsets[kLaneBlock], single_offsets[kLaneBlock] = {};
      if constexpr (Level::kOffset) Level::lane_offsets(lane_at(lane), groups_, offsets);
      const bool last = singles != 0 && lane + kLaneBlock >= end;
      const std::size_t in_block = end % kLaneBlock;
      const std::uint8_t* block = lane_at(end - in_block);
      if constexpr (Level::kOffset) {
        if (last) Level::lane_offsets(block, groups_, single_offsets);
      }
      Tile tile = at(0, lane, kRowBlock, smaller(kLaneBlock, end - lane), offsets);
      if (row_bytes_applies) tile.row_bytes = &row_bytes;
      if (last) {
        tile.single = block + in_block * 4;
        tile.single_offsets = single_offsets + in_block;
      }
      for (std::size_t row = 0; row < job_.rows; row += kRowBlock, advance(tile)) {
        tile.rows = smaller(kRowBlock, job_.rows - row);
        if (last)
          run_with_singles<kBlockVectors, Level::kMostSingles>(tile, singles);
        else
          run<kRowBlock, kBlockVectors>(tile);
      }
    }
  }

  void rows_then_lanes() const {
    std::int32_t offsets[kRowChunk];
    for (std::size_t first = 0; first < job_.rows; first += kRowChunk) {
      const std::size_t end = smaller(first + kRowChunk, job_.rows);
      if constexpr (Level::kOffset) {
        for (std::size_t row = first; row < end; ++row)
          offsets[row - first] = Level::row_offset(row_at(row), groups_);
      }
      const std::size_t whole = (end - first) / Level::kTileRows * Level::kTileRows;
      run_rows<Level::kTileRows>(first, whole, offsets);
      run_last_rows<Level::kTileRows - 1>(first + whole, end - first - whole, offsets + whole);
    }
  }

  /// All lanes of `count` rows, a multiple of R.
  template <int R>
  void run_rows(std::size_t first, std::size_t count, const std::int32_t* offsets) const {
    constexpr int kFit = Level::kTileSums / (R * kBlockVectors), kBlocks = kFit < 1 ? 1 : kFit < 4 ? kFit : 4;
    constexpr std::size_t kLanes = kBlocks * kLaneBlock;
    for (std::size_t lane = 0; lane < job_.lanes; lane += kLanes) {
      for (std::size_t row = 0; row < count; row += R)
        run_lanes<R, kBlocks * kBlockVectors>(at(first + row, lane, R, kLanes, offsets + row));
    }
  }

  template <int R>
  void run_last_rows(std::size_t first, std::size_t count, const std::int32_t* offsets) const {
    if constexpr (R > 0) {
      if (count != R) return run_last_rows<R - 1>(first, count, offsets);
      run_rows<R>(first, R, offsets);
    }
  }

  const std::uint8_t* lane_at(std::size_t lane) const {
    return static_cast<const std::uint8_t*>(job_.lane) + lane * groups_ * 4;
  }
  const std::uint8_t* row_at(std::size_t row) const {
    const std::size_t in_block = row % kRowBlock;
    return static_cast<const std::uint8_t*>(job_.broadcast) + (row - in_block) * groups_ * 4 + in_block * 4;
  }
  Tile at(std::size_t row, std::size_t lane, std::size_t rows, std::size_t lanes,
          const std::int32_t* offsets) const {
    return {row_at(row),
            lane_at(lane),
            groups_,
            offsets,
            *static_cast<const EpilogueS8*>(job_.epilogue),
            axis == ChannelAxis::rows ? row : lane,
            job_.out,
            row * job_.out_stride + lane,
            job_.out_stride,
            smaller(rows, job_.rows - row),
            smaller(lanes, job_.lanes - lane),
            nullptr,
            nullptr,
            job_.couples,
            nullptr};
  }

  /// Goes on to the row block after that of a tile with channels in rows.
  void advance(Tile& tile) const {
    tile.broadcast += groups_ * kRowBlock * 4;
    tile.channel += kRowBlock;
    tile.index += kRowBlock * tile.out_stride;
    if constexpr (Level::kCouples) {
      tile.couples.order += groups_;
      ++tile.couples.start;
    }
  }

  /// The tile of R rows and V vectors, or the least that holds the valid outputs.
  template <int R, int V>
  static void run(const Tile& tile) {
    if constexpr (R > 1) {
      if (tile.rows <= R / 2) return run<R / 2, V>(tile);
    }
    run_lanes<R, V>(tile);
  }

  template <int R, int V>
  static void run_lanes(const Tile& tile) {
    if constexpr (V > 1) {
      constexpr int kFewer = V > kBlockVectors ? V - kBlockVectors : V - 1;
      if (tile.lanes <= kFewer * kWidth) return run_lanes<R, kFewer>(tile);
    }
    multiply_near_or_far<R, V, 0>(tile);
  }

  template <int V, int S>
  static void run_with_singles(const Tile& tile, std::size_t singles) {
    if constexpr (S > 1) {
      if (singles < S) return run_with_singles<V, S - 1>(tile, singles);
    }
    if constexpr (V > 1) {
      if (tile.lanes <= (V - 1) * kWidth) return run_with_singles<V - 1, S>(tile, singles);
    }
    multiply_near_or_far<kRowBlock, V, S>(tile);
  }

  /// All rows, in whole row blocks, of two lane blocks: the second one finds the weights in the nearest
  /// cache, and what a row has in excess is added to the sums of both at once, no more steps than that row
  /// has.
  template <bool kFar>
  [[gnu::noinline]] void multiply_pair(std::size_t first, const typename Level::RowBytes& row_bytes) const {
    constexpr int R = kRowBlock, V = kBlockVectors;
    const std::uint8_t* const lane[2] = {lane_at(first), lane_at(first + kLaneBlock)};
    std::int32_t offsets[2][kLaneBlock];
    if constexpr (Level::kOffset) {
      for (int half = 0; half < 2; ++half) Level::lane_offsets(lane[half], groups_, offsets[half]);
    }
    Tile tile = at(0, first, kRowBlock, kLaneBlock, nullptr);
    auto* out = static_cast<std::uint8_t*>(tile.out) + tile.index;
    for (; tile.channel < job_.rows; advance(tile)) {
      Vector sums[R][2 * V];
      for (int half = 0; half < 2; ++half) {
        tile.lane = lane[half];
        tile.offsets = offsets[half];
        Vector sum[R][V], none[1];
        start<R, V>(tile, sum);
        RowSums<Level, R, V, 0>::template add_all<kFar>(tile, sum, none);
        unroll<R>([&](auto r) GRISTMILL_INLINE {
          unroll<V>([&](auto v) GRISTMILL_INLINE { sums[r][half * V + v] = sum[r][v]; });
        });
      }
      const float* scale = tile.epilogue.scale + tile.channel;
      for (int r = 0; r < R; ++r, out += tile.out_stride) {
        if constexpr (Level::kCouples) add_row_excess<Level>(tile.couples, r, lane, sums[r]);
        row_bytes.store_row(sums[r], scale[r], out);
      }
    }
  }

  /// S lanes ride along.
  template <int R, int V, int S>
  static void multiply_near_or_far(const Tile& tile) {
    if constexpr (axis == ChannelAxis::rows && Level::kCouples) {
      if (RowSums<Level, R, V, S>::is_far(tile.groups, 1)) return multiply_tile<R, V, S, true>(tile);
    }
    multiply_tile<R, V, S, false>(tile);
  }

  template <int R, int V, int S, bool kFar>
  [[gnu::noinline]] static void multiply_tile(const Tile& tile) {
    Vector sum[R][V];
    start<R, V>(tile, sum);
    Vector single[S + 1];
    unroll<S>([&](auto s) GRISTMILL_INLINE { single[s] = Level::load_all(tile.single_offsets + s); });
    if constexpr (axis == ChannelAxis::rows)
      add_rows<Level, R, V, S, kFar>(tile, sum, single);
    else
      add_lanes<Level, R, V>(tile, sum);
    store<R, V>(tile, sum);
    if constexpr (S > 0) {
      Vector columns[S];
      unroll<S>([&](auto s) GRISTMILL_INLINE { columns[s] = single[s]; });
      store_singles(tile, columns, S);
    }
  }

  /// Sums start at the bias, and at what the offsets add to it.
  template <int R, int V>
  [[gnu::always_inline]] static void start(const Tile& tile, Vector (&sum)[R][V]) {
    if constexpr (axis == ChannelAxis::rows) {
      const std::int32_t* bias = tile.epilogue.bias + tile.channel;
      unroll<R>([&](auto r)
                    GRISTMILL_INLINE { sum[r][0] = Level::load_all(bias + (r < tile.rows ? r : 0)); });
      unroll<R>([&](auto r) GRISTMILL_INLINE {
        unroll<V - 1>([&](auto v) GRISTMILL_INLINE { sum[r][v + 1] = sum[r][0]; });
      });
    } else {
      const typename Level::template ManyChannels<V> channels(tile.epilogue, tile.channel, tile.lanes);
      unroll<V>([&](auto v) GRISTMILL_INLINE { sum[0][v] = channels.bias(v); });
      unroll<R - 1>([&](auto r) GRISTMILL_INLINE {
        unroll<V>([&](auto v) GRISTMILL_INLINE { sum[r + 1][v] = sum[0][v]; });
      });
    }
    if constexpr (Level::kOffset) {
      unroll<R>([&](auto r) GRISTMILL_INLINE {
        unroll<V>([&](auto v) GRISTMILL_INLINE {
          const Vector offset = axis == ChannelAxis::rows ? Level::load(tile.offsets + v * kWidth)
                                                          : Level::load_all(tile.offsets + r);
          sum[r][v] = Level::add(sum[r][v], offset);
        });
      });
    }
  }

  /// Channels whose bias is in the sums.
  template <class Channels>
  struct Biased : Channels {
    using Channels::Channels;
    [[gnu::always_inline]] Vector bias(int) const { return Level::zero(); }
  };

  /// Works on copies, which stores of bytes cannot change.
  template <int R, int V>
  [[gnu::always_inline]] static void store(const Tile& original, const Vector (&sum)[R][V]) {
    if constexpr (axis == ChannelAxis::rows && R % 2 == 0 && V == kBlockVectors) {
      if (original.row_bytes != nullptr && original.rows == R && original.lanes == kLaneBlock)
        return store_bytes<R, V>(original, sum);
    }
    const Tile tile = original;
    const EpilogueS8 parameters = tile.epilogue;
    const typename Level::Epilogue epilogue(parameters);
    const auto store_row = [&](auto r, const auto& channels) GRISTMILL_INLINE {
      epilogue.template store<V>(sum[r], channels, tile.out, tile.index + r * tile.out_stride, tile.lanes);
    };
    if constexpr (axis == ChannelAxis::rows) {
      unroll<R>([&](auto r) GRISTMILL_INLINE {
        if (r < tile.rows) store_row(r, Biased<typename Level::OneChannel>(parameters, tile.channel + r));
      });
    } else {
      const Biased<typename Level::template ManyChannels<V>> channels(parameters, tile.channel, tile.lanes);
      unroll<R>([&](auto r) GRISTMILL_INLINE {
        if (r < tile.rows) store_row(r, channels);
      });
    }
  }

  /// Whole rows, two at a time.
  template <int R, int V>
  [[gnu::always_inline]] static void store_bytes(const Tile& tile, const Vector (&sum)[R][V]) {
    const auto& row_bytes = *static_cast<const typename Level::RowBytes*>(tile.row_bytes);
    const float* scale = tile.epilogue.scale + tile.channel;
    const std::size_t stride = tile.out_stride;
    auto* out = static_cast<std::uint8_t*>(tile.out) + tile.index;
    unroll<R / 2>([&](auto i) GRISTMILL_INLINE {
      constexpr int r = 2 * i.value;
      row_bytes.store(sum[r], scale[r], sum[r + 1], scale[r + 1], out + r * stride, stride);
    });
  }

  /// The columns of sums from lane tile.lanes on.
  [[gnu::noinline]] static void store_singles(const Tile& tile, const Vector* columns, std::size_t count) {
    const bool bytes = tile.epilogue.type == OutputType::u8 || tile.epilogue.type == OutputType::s8;
    const std::size_t size = bytes ? 1 : 4;
    std::uint8_t stored[Level::kMostSingles][kWidth * 4];
    const typename Level::Epilogue epilogue(tile.epilogue);
    const typename Level::template ManyChannels<1> channels(tile.epilogue, tile.channel, tile.rows);
    for (std::size_t s = 0; s < count; ++s)
      epilogue.template store<1>(columns + s, channels, stored[s], 0, tile.rows);
    auto* out = static_cast<std::uint8_t*>(tile.out) + (tile.index + tile.lanes) * size;
    for (std::size_t r = 0; r < tile.rows; ++r, out += tile.out_stride * size) {
      for (std::size_t s = 0; s < count; ++s) {
        if (bytes) {
          out[s] = stored[s][r];
        } else {
          __builtin_memcpy(out + 4 * s, stored[s] + 4 * r, 4);
        }
      }
    }
  }

  const DenseJob& job_;
  std::size_t groups_;
};

/// The slots of one way of multiplying.
template <class Level>
constexpr DenseS8Variant dense_s8_variant() {
  return {Level::kFlip, DenseS8<Level, ChannelAxis::rows>::kernel(),
          DenseS8<Level, ChannelAxis::lanes>::kernel()};
}

}  // namespace
}  // namespace gristmill
