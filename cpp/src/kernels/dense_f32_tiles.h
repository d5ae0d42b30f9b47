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
///                  broadcast, fma, add, clamp; the *_first forms touch the first n elements only
///     Rows         the broadcast operand of one k: Rows(pointer, step).fma<r>(x, sum) = sum + pointer[r *
///                  step] * x
///     kBroadcastsMemory   whether step may differ from 1: then activations are rows of a plain matrix
///     RowSimd      vectors that run along the rows of a block, at most kRowBlock wide or wider by a masked
///                  end
///     kRowBlock, kLaneVectors     the lane block is kLaneVectors * Simd::kWidth
///     kSums        accumulators in use
///     kDepth       the K of a slice of the lane operand that stays in the first-level cache
///     kDepthInPlace   the same for a matrix whose rows may be of few of the cache's sets
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
/// first-level cache while the slices of the chunk's row blocks stream past it from the second-level cache.
/// Between slices the sums rest in the output, which loses nothing, for they are f32 either way.
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
  static constexpr DenseKernel kernel() { return {Tile::kPlainRows ? 1 : kRowBlock, kLaneBlock, multiply}; }

 private:
  using Tile = Tiles<Level, axis>;
  static constexpr int kVectors = Level::kLaneVectors;
  static constexpr int kWidth = Tile::kWidth;
  static constexpr std::size_t kRowBlock = Tile::kRowBlock;
  static constexpr int kMostSingles = Tile::kPlainRows ? 0 : kMaxSingles;
  static constexpr std::size_t kLaneBlock = Tile::kLaneBlock;

  explicit DenseF32(const DenseJob& job) : job_(job) {}

  static void multiply(const DenseJob& job) { DenseF32(job).run(); }

  void run() {
    // One block of rows, or of lanes, reads what it is multiplied by once: that needs no cache to stay in.
    const bool once = job_.rows <= kRowBlock;
    const std::size_t most = in_place() ? Level::kDepthInPlace : Level::kDepth;
    const std::size_t slices = once || lane_k() == 0 ? 1 : blocks_of(lane_k(), most);
    const std::size_t depth = blocks_of(lane_k(), slices);
    const std::size_t chunk = Level::kChunkBytes / ((depth + 1) * sizeof(float));
    const std::size_t rows = job_.lanes < 2 * kLaneBlock ? job_.rows : (chunk / kRowBlock + 1) * kRowBlock;
    const std::size_t lanes = once ? job_.lanes : (chunk / kLaneBlock + 1) * kLaneBlock;
    for (std::size_t row = 0; row < job_.rows; row += rows) {
      for (std::size_t lane = 0; lane < job_.lanes; lane += lanes) {
        begin_ = job_.first_k;
        const std::size_t end = begin_ + lane_k();
        do {
          depth_ = smaller(depth, end - begin_);
          multiply(row, smaller(rows, job_.rows - row), lane, smaller(lanes, job_.lanes - lane));
          begin_ += depth_;
        } while (begin_ < end);
      }
    }
  }

  void multiply(std::size_t row, std::size_t rows, std::size_t lane, std::size_t lanes) const {
    const std::size_t tail = lanes % kLaneBlock, end = lane + lanes - tail;
    const bool single = tail == 1 && lanes > 1 && kMostSingles > 0;
    const std::size_t plain_end = single ? end - kLaneBlock : end;
    const std::size_t tail_rows = rows % kRowBlock, row_end = row + rows - tail_rows;
    multiply_plain(row, row_end, lane, plain_end);
    if (tail_rows != 0) multiply_tail_rows<kRowBlock - 1>(row_end, tail_rows, lane, plain_end);
    if (single) {
      for_each_row_block<smaller(kMostSingles, 1)>(row, rows, plain_end, kVectors, kWidth);
    } else if (tail != 0) {
      multiply_tail_lanes(row, rows, end, tail);
    }
  }

  /// Whole blocks. Residuals come from far away: where K is too short to wait for them behind it, tiles
  /// follow each other along their rows, which the hardware sees coming.
  void multiply_plain(std::size_t row, std::size_t row_end, std::size_t lane, std::size_t lane_end) const {
    const auto multiply = [this](std::size_t r, std::size_t l) {
      Tile::template lane_tile<kRowBlock, kVectors, 1, 0>(at(r, l), kWidth);
    };
    if (epilogue().residual != nullptr && depth_ <= kShortDepth) {
      for (std::size_t r = row; r < row_end; r += kRowBlock)
        for (std::size_t l = lane; l < lane_end; l += kLaneBlock) multiply(r, l);
      return;
    }
    for (std::size_t l = lane; l < lane_end; l += kLaneBlock)
      for (std::size_t r = row; r < row_end; r += kRowBlock) multiply(r, l);
  }

  /// Fewer rows than a block: several lane blocks at once, to keep enough sums in flight.
  template <int R>
  void multiply_tail_rows(std::size_t row, std::size_t rows, std::size_t lane, std::size_t end) const {
    if constexpr (R > 0) {
      if (rows != R) return multiply_tail_rows<R - 1>(row, rows, lane, end);
      constexpr int kFit = Level::kSums / (R * kVectors), kBlocks = kFit < 1 ? 1 : kFit > 4 ? 4 : kFit;
      for (; lane + kBlocks * kLaneBlock <= end; lane += kBlocks * kLaneBlock) {
        Tile::template lane_tile<R, kVectors, kBlocks, 0>(at(row, lane), kWidth);
      }
      for (; lane < end; lane += kLaneBlock)
        Tile::template lane_tile<R, kVectors, 1, 0>(at(row, lane), kWidth);
    }
  }

  void multiply_tail_lanes(std::size_t row, std::size_t rows, std::size_t lane, std::size_t lanes) const {
    const std::size_t rest = lanes % kWidth, singles = rest <= kMostSingles ? rest : 0;
    const std::size_t vectors = lanes / kWidth + (rest > singles ? 1 : 0);
    if (vectors != 0) for_each_row_block<0>(row, rows, lane, vectors, rest > singles ? rest : kWidth);
    if (singles != 0) multiply_singles<kMostSingles>(row, rows, lane, vectors * kWidth, singles);
  }

  template <int S>
  void for_each_row_block(std::size_t row, std::size_t rows, std::size_t lane, std::size_t vectors,
                          std::size_t last) const {
    for (std::size_t r = 0; r < rows; r += kRowBlock)
      lane_tile<kRowBlock, kVectors, S>(at(row + r, lane), smaller(kRowBlock, rows - r), vectors, last);
  }

  template <int R, int V, int S>
  static void lane_tile(const Slice& slice, std::size_t rows, std::size_t vectors, std::size_t last) {
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
            job_.out_stride};
  }

  const DenseJob& job_;
  std::size_t begin_ = 0, depth_ = 0;  // of the slice at hand
};

}  // namespace
}  // namespace gristmill
