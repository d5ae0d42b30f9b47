#pragma once

#include <cstddef>
#include <cstdint>

#include "epilogue_kernels.h"

/// Dense weight kernels: a block of rows times a block of lanes, over all of K, ending in the epilogue.
///
/// Both uses of a dense kernel multiply a *broadcast* operand by a *lane* operand, and differ only in which
/// is the weights:
///
///                   broadcast operand [rows]        lane operand [lanes]       output
///     convolution   weights, packed once            quad panel of pixels       Y[m][p]: channels in rows
///     linear        activations, packed per call    weights, packed once       Y[n][m]: channels in lanes
///
/// A linear layer that is packed for batches (linear.h) runs as a convolution of one pixel for each row.
///
/// Storage of int8 operands is in groups of `depth` K of a row, and of four K of a lane, where D is K rounded
/// up to whole groups of `depth`, which is 4 but for kernels that multiply tiles:
///
///     broadcast  [row blocks][D/depth][row_block][depth]   rows of the last block beyond M are zero
///     lane       [lane blocks][D/4][lane_block][4]         lanes of the last block beyond P hold anything
///
/// where the weights of K beyond the last are zero and the activations there anything,
/// and of f32 operands in single K: [row blocks][K][row_block], [lane blocks][K][lane_block]. With a row
/// block of one, the broadcast operand is a plain matrix: activations need no packing unless their K is
/// ragged.
namespace gristmill {

/// Row block of kernels that take couples, and what the weights of one sum add up to there.
constexpr std::size_t kCoupledRows = 4;
constexpr int kCoupleSum = 128;
/// How far before their turn kernels may fetch the lanes of a couple.
constexpr std::size_t kGroupsAhead = 16;

/// Weights of a broadcast operand for kernels that add the products of two groups of K, a *couple*, in 16
/// bits before they widen them: fewer instructions, and exact with any u8 activations where no sum saturates.
///
/// Such a sum is of four products, those of a pair (w0, w1) or (w2, w3) of one group and of the same pair of
/// the other one. s16 holds it if the positive weights of the four add up to at most kCoupleSum, and the
/// negative ones to at least -kCoupleSum. Each row block has an order of its own for its groups, in which
/// most couples fit. Where a row's weights exceed that, they are cut, and what was cut off is multiplied by a
/// further pass of *steps*, each of two single groups of each row's own: not zero in the first as long as the
/// row has steps, and zeros from there on. So the kernel's sum is exact, and fast while few rows exceed.
struct DenseCouples {
  /// [row blocks][ceil(K/4)] and kGroupsAhead of any: group of K of each packed group; two are a couple.
  const std::uint16_t* order;
  const std::uint32_t* start;         ///< [row blocks + 1]: steps, from this call's first row block on
  const std::uint32_t* excess_group;  ///< [start[last]][2][kCoupledRows]
  const void* excess_weights;         ///< [start[last]][2][kCoupledRows][4], of which both fit one sum
};

/// One call multiplies whole row blocks by whole lane blocks, which `rows` and `lanes` need not fill:
/// operands are read block by block, and of the output exactly the valid elements are written. int8 sums that
/// leave s32 wrap; drivers bound K so that none does.
struct DenseJob {
  const void* broadcast;
  const void* lane;
  std::size_t k;            ///< K in elements, not rounded
  std::size_t rows, lanes;  ///< valid rows and lanes over all blocks of this call
  const void* epilogue;     ///< EpilogueS8 or EpilogueF32; its arrays start at this call's first channel
  void* out;                ///< element (0, 0) of this call's output
  std::size_t out_stride;   ///< elements from one row of the output to the next
  DenseCouples couples{};   ///< of no_saturation with channels in rows only
  /// 0, or the lane operand is no panel but a matrix of K rows that begin this many floats apart: f32 with
  /// channels in rows only. Of each row whole vectors are read, of 16 floats or fewer.
  std::size_t lane_stride = 0;
  /// Where part_k is not 0, the lane operand holds no more than that many K, from first_k on: f32 with
  /// channels in rows only. Calls for all parts, in ascending order, come to one; between them sums rest in
  /// the output.
  std::size_t first_k = 0, part_k = 0;
  float* copies = nullptr;  ///< for a matrix, DenseKernel::copy_bytes that the call may overwrite, or null
};

/// A kernel and the blocks of its operands.
struct DenseKernel {
  std::size_t row_block, lane_block;
  void (*multiply)(const DenseJob& job);
  std::size_t depth = 4;  ///< of int8 operands
  /// Of f32 operands, the K of panels at a time that pays, for weights that a cache near the core holds and
  /// for others.
  std::size_t near_depth = 192, far_depth = 256;
  std::size_t copy_bytes = 0;  ///< of DenseJob::copies
  /// f32 with channels in rows: the K up to which rows that slide (sliding_rows.h) are faster than panels.
  std::size_t sliding_k = 0;
};

/// A way of multiplying int8 operands at one level.
struct DenseS8Variant {
  /// XOR applied to u8 activations when they are packed (0x80: the kernel wants s8; s8 activations take flip
  /// ^ 0x80). The driver folds the shift of 128 into bias.
  std::uint8_t flip;
  DenseKernel channels_in_rows;   ///< broadcast = weights s8, lane = activations
  DenseKernel channels_in_lanes;  ///< broadcast = activations, lane = weights s8
};

struct DenseKernels {
  /// Exact for every s8 weight in [-127, 127].
  DenseS8Variant general;
  /// Faster, and exact only for weights that are coupled where channels are in rows, and where they are in
  /// lanes for those of which every pair (w[4g], w[4g+1]) and (w[4g+2], w[4g+3]) has opposite signs or |w0| +
  /// |w1| <= 128. Equal to `general` where the level has no such kernel.
  DenseS8Variant no_saturation;
  DenseKernel f32_channels_in_rows;
  DenseKernel f32_channels_in_lanes;
};

}  // namespace gristmill
