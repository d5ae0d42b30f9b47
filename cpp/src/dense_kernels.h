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
/// Storage of both int8 operands is in groups of four K:
///
///     broadcast  [row blocks][ceil(K/4)][row_block][4]     rows of the last block beyond M are zero
///     lane       [lane blocks][ceil(K/4)][lane_block][4]   lanes of the last block beyond P hold anything
///
/// where the weights of K beyond the last are zero and the activations there anything,
/// and of f32 operands in single K: [row blocks][K][row_block], [lane blocks][K][lane_block]. With a row
/// block of one, the broadcast operand is a plain matrix: activations need no packing unless their K is
/// ragged.
namespace gristmill {

/// Weights of a broadcast operand beyond what is multiplied safely, for kernels of which pairs may not
/// saturate.
///
/// A pair (w0, w1) of one sign with |w0| + |w1| > 128 is cut to a sum of 128, and what was cut off is
/// multiplied by a further pass over the few groups of K that hold any: the kernel's sum is exact and its
/// speed almost that of weights which never saturate. Trained weights have such a pair in about one group of
/// a hundred.
struct DenseExcess {
  const std::uint32_t* start;  ///< [row blocks + 1], from this call's first row block on
  const std::uint32_t* group;  ///< [start[last]]: a group of four K
  const void* weights;         ///< [start[last]][row_block][4]
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
  DenseExcess excess{};     ///< s8 with channels in rows only; null pointers where there is none
};

/// A kernel and the blocks of its operands.
struct DenseKernel {
  std::size_t row_block, lane_block;
  void (*multiply)(const DenseJob& job);
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
  /// Faster, and exact only where every pair of weights (w[4g], w[4g+1]) and (w[4g+2], w[4g+3]) has opposite
  /// signs or |w0| + |w1| <= 128. Equal to `general` where the level has no such kernel.
  DenseS8Variant no_saturation;
  DenseKernel f32_channels_in_rows;
  DenseKernel f32_channels_in_lanes;
};

}  // namespace gristmill
