#pragma once

#include <cstddef>

#include "dense_kernels.h"
#include "kernels/dense_f32_sums.h"

/// The dense f32 kernels of every vector level, as templates over the level's vectors.
///
/// Everything is in an unnamed namespace: each kernel file that includes this header has copies of its own,
/// compiled with its own flags. `Level` names
///
///     Simd         vectors that run along lanes: Vector, kWidth, zero, load, load_first, store, store_first,
///                  broadcast, fma, add, raise, lower (max and min that keep NaN); the *_first forms touch
///                  the first n elements only
///     Rows         the broadcast operand of one k: Rows(pointer, step).fma<r>(x, sum) = sum + pointer[r *
///                  step] * x
///     kBroadcastsMemory   whether step may differ from 1: then activations are rows of a plain matrix
///     RowSimd      vectors that run along the rows of a block, at most kRowBlock wide or wider by a masked
///                  end
///     kRowBlock, kLaneVectors     the lane block is kLaneVectors * Simd::kWidth
///     kSums        accumulators in use
///     kDepth       the most K of a slice
///     kNearDepth, kFarDepth   see DenseKernel
///     kCopies      whether lanes of a matrix are copied
///     kFollowsRows    whether tiles of a short K follow their rows without residuals too
///     kDepthInPlace   without copies, kDepth for a matrix, whose rows may be of few of the cache's sets
///     kChunkBytes  of each operand, that stay in the second-level cache
///
/// Two tiles cover the output:
///
///               lane block       lane block       last lanes
///              [v0][v1]..       [v0][v1].. 1     [v0] 1 2 3 4
///     row      +-------------+  +-----------++   +---++------+
///     block    | lane tile   |  |           ||   |   || row  |
///              +-------------+  +-----------++   +---+| tile |
///     row      |             |  |           ||   |   ||      |
///     block    |             |  |           ||   |   ||      |
///     ...      +-------------+  +-----------++   +---++------+
///
///     lane tile   lanes in vectors, rows broadcast
///     row tile    rows in vectors, lanes broadcast: for up to kMaxSingles last lanes
///
/// so that lanes beyond the last whole vector cost their own arithmetic and not a vector's. A single lane
/// beyond the last whole block, as in a 7x7 plane, rides along with that block's lane tiles. Rows of a plain
/// matrix are not side by side and have lane tiles alone.
///
/// Every output is one accumulator that adds its products in ascending k, whichever tile computes it: its
/// bits depend on nothing but its operands.
///
/// K is cut into slices of at most kDepth, rows and lanes into chunks: a slice of one lane block stays in the
/// first-level cache, or where the core reads ahead well enough in the second-level cache, while the slices
/// of the chunk's row blocks stream past it from there. Between slices the sums rest in the output, which
/// loses nothing, for they are f32 either way.
///
/// Where the lanes are a matrix, whole blocks of them may be copied: the tiles of the first block of rows
/// store what they load as panels, which the others read. That hides the packing behind multiplications.
namespace gristmill {
namespace {

constexpr int kMaxSingles = 4;
constexpr std::size_t kShortDepth = 96;

constexpr std::size_t smaller(std::size_t a, std::size_t b) { return a < b ? a : b; }
constexpr std::size_t blocks_of(std::size_t n, std::size_t block) { return (n + block - 1) / block; }

/// Covers the output of one job with tiles.
template <class Level, ChannelAxis axis>
class DenseF32 {
 public:
  static constexpr DenseKernel kernel() {
    constexpr std::size_t copies = Level::kChunkBytes + kLaneBlock * Level::kDepth * sizeof(float);
    return {.row_block = Tile::kPlainRows ? 1 : kRowBlock,
            .lane_block = kLaneBlock,
            .multiply = multiply,
            .near_depth = Level::kNearDepth,
            .far_depth = Level::kFarDepth,
            .copy_bytes = kCopies ? copies : 0};
  }

 private:
  using Tile = Tiles<Level, axis>;
  static constexpr int kVectors = Level::kLaneVectors;
  static constexpr int kWidth = Tile::kWidth;
  static constexpr std::size_t kRowBlock = Tile::kRowBlock;
  static constexpr int kMostSingles = Tile::kPlainRows ? 0 : kMaxSingles;
  static constexpr std::size_t kLaneBlock = Tile::kLaneBlock;
  static constexpr bool kCopies = Tile::kCopies;

  explicit DenseF32(const DenseJob& job) : job_(job) {}

  static void multiply(const DenseJob& job) { DenseF32(job).run(); }

  void run() {
    // One block of rows, or of lanes, reads what it is multiplied by once: that needs no cache to stay in.
    const bool once = job_.rows <= kRowBlock;
    copies_ = kCopies && in_place() && job_.copies != nullptr && !once;
    const std::size_t slices = once || lane_k() == 0 ? 1 : blocks_of(lane_k(), most_depth());
    const std::size_t depth = blocks_of(lane_k(), slices);
    const std::size_t chunk = Level::kChunkBytes / ((depth + 1) * sizeof(float));
    const std::size_t rows = job_.lanes < 2 * kLaneBlock ? job_.rows : (chunk / kRowBlock + 1) * kRowBlock;
    const std::size_t lanes = once ? job_.lanes : (chunk / kLaneBlock + 1) * kLaneBlock;
    if (copies_) {
      for (first_lane_ = 0; first_lane_ < job_.lanes; first_lane_ += lanes)
        for_each_slice(depth, [&] {
          for (std::size_t row = 0; row < job_.rows; row += rows) multiply_chunk(row, rows, lanes);
        });
    } else {
      for (std::size_t row = 0; row < job_.rows; row += rows)
        for (first_lane_ = 0; first_lane_ < job_.lanes; first_lane_ += lanes)
          for_each_slice(depth, [&] { multiply_chunk(row, rows, lanes); });
    }
  }

  template <class Body>
  void for_each_slice(std::size_t depth, const Body& body) {
    begin_ = job_.first_k;
    const std::size_t end = begin_ + lane_k();
    do {
      depth_ = smaller(depth, end - begin_);
      body();
      begin_ += depth_;
    } while (begin_ < end);
  }

  void multiply_chunk(std::size_t row, std::size_t rows, std::size_t lanes) const {
    multiply(row, smaller(rows, job_.rows - row), first_lane_, smaller(lanes, job_.lanes - first_lane_));
  }

  void multiply(std::size_t row, std::size_t rows, std::size_t lane, std::size_t lanes) const {
    const std::size_t tail = lanes % kLaneBlock, end = lane + lanes - tail;
    const bool single = tail == 1 && lanes > 1 && kMostSingles > 0;
    const std::size_t plain_end = single ? end - kLaneBlock : end;
    const std::size_t tail_rows = rows % kRowBlock, row_end = row + rows - tail_rows;
    multiply_plain(row, row_end, lane, plain_end);
    if (tail_rows != 0) multiply_tail_rows<kRowBlock - 1>(row_end, tail_rows, lane, plain_end);
    if (single) {
      for_each_row_block<smaller(kMostSingles, 1)>(row, rows, plain_end, kVectors, Tile::kWhole);
    } else if (tail != 0) {
      multiply_tail_lanes(row, rows, end, tail);
    }
  }

  /// Whole blocks. Residuals, and lines of the output, come from far away: where K is too short to wait for
  /// them behind it, tiles follow each other along their rows, which the hardware sees coming.
  void multiply_plain(std::size_t row, std::size_t row_end, std::size_t lane, std::size_t lane_end) const {
    if ((Level::kFollowsRows || epilogue().residual != nullptr) && depth_ <= kShortDepth) {
      for (std::size_t r = row; r < row_end; r += kRowBlock)
        multiply_blocks<true>(r, lane, (lane_end - lane) / kLaneBlock);
    } else {
      for (std::size_t l = lane; l < lane_end; l += kLaneBlock)
        multiply_blocks<false>(row, l, (row_end - row) / kRowBlock);
    }
  }

  /// Blocks from (row, lane) on, which lie along their rows or one below the other.
  template <bool along_rows>
  void multiply_blocks(std::size_t row, std::size_t lane, std::size_t count) const {
    if constexpr (kCopies) {
      if (copies_ && row == 0 && count > 0) {
        Slice slice = at(row, lane);
        slice.copy = copy_of(lane);
        const std::size_t copied = along_rows ? count : 1;
        walk<along_rows, true>(slice, copied);
        row += kRowBlock, count -= copied;
      }
    }
    walk<along_rows, false>(block_at(row, lane), count);
  }

  /// Slices are advanced, not made anew: in a short tile that tells.
  template <bool along_rows, bool copies>
  void walk(Slice slice, std::size_t count) const {
    constexpr bool next_channels = along_rows == (axis == ChannelAxis::lanes);
    constexpr std::size_t last_ahead = kLaneBlock + (kVectors - 1) * kWidth;
    const std::size_t outputs = along_rows ? kLaneBlock : kRowBlock * job_.out_stride;
    for (; count > 0; --count) {
      Tile::template lane_tile<kRowBlock, kVectors, 1, 0, copies>(slice, Tile::kWhole);
      slice.out += outputs;
      if (slice.residual != nullptr) slice.residual += outputs;
      if (next_channels) slice.bias += along_rows ? kLaneBlock : kRowBlock;
      if (along_rows) {
        slice.lane += slice.lane_step;
        if (copies) slice.copy += depth_ * kLaneBlock;
      } else {
        slice.broadcast += kRowBlock * job_.k;
        if (!kCopies && in_place())
          slice.lane_ahead = slice.lane_ahead == last_ahead ? kLaneBlock : slice.lane_ahead + kWidth;
      }
    }
  }

  /// Fewer rows than a block: several lane blocks at once, to keep enough sums in flight.
  template <int R>
  void multiply_tail_rows(std::size_t row, std::size_t rows, std::size_t lane, std::size_t end) const {
    if constexpr (R > 0) {
      if (rows != R) return multiply_tail_rows<R - 1>(row, rows, lane, end);
      constexpr int kFit = Level::kSums / (R * kVectors), kBlocks = kFit < 1 ? 1 : kFit > 4 ? 4 : kFit;
      for (; lane + kBlocks * kLaneBlock <= end; lane += kBlocks * kLaneBlock) {
        Tile::template lane_tile<R, kVectors, kBlocks, 0>(block_at(row, lane), Tile::kWhole);
      }
      for (; lane < end; lane += kLaneBlock)
        Tile::template lane_tile<R, kVectors, 1, 0>(block_at(row, lane), Tile::kWhole);
    }
  }

  void multiply_tail_lanes(std::size_t row, std::size_t rows, std::size_t lane, std::size_t lanes) const {
    const std::size_t rest = lanes % kWidth, singles = rest <= kMostSingles ? rest : 0;
    const std::size_t vectors = lanes / kWidth + (rest > singles ? 1 : 0);
    if (vectors != 0) for_each_row_block<0>(row, rows, lane, vectors, rest > singles ? rest : kWidth);
    if (singles != 0) multiply_singles<kMostSingles>(row, rows, lane, vectors * kWidth, singles);
  }

  template <int S, class Lanes>
  void for_each_row_block(std::size_t row, std::size_t rows, std::size_t lane, std::size_t vectors,
                          Lanes last) const {
    for (std::size_t r = 0; r < rows; r += kRowBlock)
      lane_tile<kRowBlock, kVectors, S>(at(row + r, lane), smaller(kRowBlock, rows - r), vectors, last);
  }

  template <int R, int V, int S, class Lanes>
  static void lane_tile(const Slice& slice, std::size_t rows, std::size_t vectors, Lanes last) {
    if constexpr (R > 0 && V > 0) {
      if (rows != R) return lane_tile<R - 1, V, S>(slice, rows, vectors, last);
      if (S == 0 && vectors != V) return lane_tile<R, V - 1, 0>(slice, rows, vectors, last);
      Tile::template lane_tile<R, V, 1, S>(slice, last);
    }
  }

  /// The `singles` lanes from `lane + within` on.
  template <int T>
  void multiply_singles(std::size_t row, std::size_t rows, std::size_t lane, std::size_t within,
                        std::size_t singles) const {
    if constexpr (T > 0) {
      if (singles != T) return multiply_singles<T - 1>(row, rows, lane, within, singles);
      constexpr int kFit = Level::kSums / (T * Tile::kRowVectors);
      constexpr int kBlocks = kFit >= 8 ? 8 : kFit >= 4 ? 4 : kFit >= 2 ? 2 : 1;
      multiply_single_rows<kBlocks, T>(row, rows, lane, within);
    }
  }

  /// G row blocks at a time, then half as many, down to one.
  template <int G, int T>
  void multiply_single_rows(std::size_t row, std::size_t rows, std::size_t lane, std::size_t within) const {
    while (rows > (G - 1) * kRowBlock) {
      const std::size_t now = smaller(rows, G * kRowBlock);
      Tile::template row_tile<G, T>(at(row, lane, within), now);
      row += now, rows -= now;
    }
    if constexpr (G > 1) {
      if (rows != 0) multiply_single_rows<G / 2, T>(row, rows, lane, within);
    }
  }

  bool in_place() const { return job_.lane_stride != 0; }
  std::size_t most_depth() const {
    if constexpr (!Level::kCopies) {
      if (in_place()) return Level::kDepthInPlace;
    }
    return Level::kDepth;
  }
  /// K of the lane operand.
  std::size_t lane_k() const { return job_.part_k != 0 ? job_.part_k : job_.k; }
  const EpilogueF32& epilogue() const { return *static_cast<const EpilogueF32*>(job_.epilogue); }

  /// The slice whose tile starts at block-aligned (row, lane), `within` lanes into the lane block.
  Slice at(std::size_t row, std::size_t lane, std::size_t within = 0) const {
    const std::size_t channel = axis == ChannelAxis::rows ? row : lane + within;
    const std::size_t output = row * job_.out_stride + lane + within;
    const bool last = begin_ + depth_ == job_.k;
    const float* lane_operand = static_cast<const float*>(job_.lane);
    const std::size_t k = begin_ - job_.first_k;
    lane_operand += in_place() ? k * job_.lane_stride + lane : lane * lane_k() + k * kLaneBlock;
    return {static_cast<const float*>(job_.broadcast) + row * job_.k + begin_ * Tile::kBroadcastStep,
            lane_operand + within,
            depth_,
            Tile::kPlainRows ? job_.k : job_.k * kRowBlock,
            in_place() ? kLaneBlock : lane_k() * kLaneBlock,
            in_place() ? job_.lane_stride : kLaneBlock,
            in_place() ? kLaneBlock + row / kRowBlock % kVectors * kWidth : 0,
            begin_ == 0,
            last,
            epilogue(),
            epilogue().bias + channel,
            last && epilogue().residual != nullptr ? epilogue().residual + output : nullptr,
            static_cast<float*>(job_.out) + output,
            job_.out_stride,
            nullptr};
  }

  /// The slice at (row, lane) of whole lane blocks, from their copies if there are any.
  Slice block_at(std::size_t row, std::size_t lane) const {
    Slice slice = at(row, lane);
    if (kCopies && copies_) {
      slice.lane = copy_of(lane);
      slice.lane_step = depth_ * kLaneBlock;
      slice.lane_k_step = kLaneBlock;
    }
    return slice;
  }

  float* copy_of(std::size_t lane) const { return job_.copies + (lane - first_lane_) * depth_; }

  const DenseJob& job_;
  std::size_t begin_ = 0, depth_ = 0;  // of the slice at hand
  std::size_t first_lane_ = 0;         // of the chunk at hand
  bool copies_ = false;
};

}  // namespace
}  // namespace gristmill
