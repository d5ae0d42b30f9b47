#pragma once

#include <cstddef>
#include <cstdint>

#include "epilogue_kernels.h"

/// Depthwise convolution: one plane of pixels, one small kernel, one output plane.
///
/// Too few multiplications per element for panels to pay, so kernels walk the planes themselves, in one of
/// three ways.
///
/// Gathering reads the input as it is. A plan made once for a layer and an image size (depthwise_plan.h) says
/// for each vector of output pixels where the taps are: in two *windows* of the plane, each as long as a
/// vector, from which one permutation picks them. The last element of the second window is replaced by what
/// padding reads, so that borders, strides and row ends are but entries of a permutation:
///
///     windows   a0 a1 a2 a3 a4 a5 a6 a7   b0 b1 b2 b3 b4 b5 b6 pad
///     indices   0 2 4 8 9 10 15 15   ->   a0 a2 a4 b0 b1 b2 pad pad
///
/// Strips are for the commonest kernel: a vector of columns goes down the plane, or down a band of it, and
/// reads the input as it is; in f32 each row once for the rows of the output next to it.
///
/// Staging is for the levels and the shapes that cannot: a copy of the plane, padded and split by column
/// stride (see gristmill/conv.h), so that neighbouring output pixels of a row are neighbours in memory for
/// every tap:
///
///     tap t of output pixel (y, x) is at  source + y * source_row_step + x + tap_offset[t]
///
/// Where source_row_step is little more than out_columns, kernels run over the rows as if they were one, and
/// narrow planes cost no more than wide ones: staging does well to split the rows by stride too. The elements
/// between the first and the last that a tap names may therefore be read, and so may the `readable_slack`
/// after the last.
namespace gristmill {

/// One staged plane.
struct DepthwiseJob {
  const void* source;
  std::size_t source_row_step;    ///< elements between the sources of two output rows, at least out_columns
  const std::size_t* tap_offset;  ///< [taps]
  const void* weights;            ///< one channel: pack_s8's, or f32 [taps]
  std::size_t taps;
  std::size_t out_rows, out_columns;
  const void* epilogue;  ///< EpilogueS8 or EpilogueF32 at this plane's channel
  void* out;             ///< [out_rows][out_columns], contiguous
  /// Elements after the last source element that may be read without harm. With less than 63, planes smaller
  /// than a vector are slow.
  std::size_t readable_slack;
};

/// Two windows, and the first of the index vectors that pick from them.
struct GatherWindows {
  std::int32_t first[2];  ///< elements from the segment's source
  std::uint32_t indices;  ///< vectors from the first of the plan
  bool second, padded;    ///< whether any lane wants an element of the second one, or padding
  bool operator==(const GatherWindows&) const = default;
};

/// A run of consecutive output pixels.
struct GatherBlock {
  std::uint8_t pixels;  ///< 1 up to what a block holds
  /// f32: tap t of the pixels is in the vector t elements after the start of the first window, whose second
  /// one is not used; index vectors are masks, the same for each row, of the pixels that are no padding.
  bool direct;
  bool operator==(const GatherBlock&) const = default;
};

/// Some rows of a plane. The kernel reads `windows` one after the other, in the order of its loops.
struct GatherSegment {
  const GatherWindows* windows;
  const GatherBlock* blocks;
  std::size_t block_count;
  std::size_t source;  ///< elements from the plane's start
};

/// Some planes that are gathered: neighbours in the input and in the output.
///
/// A block's sums are made of `groups`, one after the other, each of some neighbouring taps of a kernel row.
/// A group has windows for each of the block's vectors, or one pair for all where `shared`. An index vector
/// holds `taps` taps (of GatherKernel) side by side for each pixel:
///
///     4, s8     a group is up to four taps. Bytes: 0.. first window, then the second.
///     2, s8     a group is a kernel row. Words, of which the high byte gives 0: below 0x80 the first window,
///               from 0x80 on the second (all of it), 0xC0 padding, 0xFF nothing.
///     1, f32    a group is a kernel row. Dwords: 0.. first window, then the second, whose top bit is set.
struct DepthwiseGatherJob {
  const void* source;  ///< planes of in_plane elements; whole windows may be read, but for the last element
  std::size_t in_plane;
  std::size_t planes, multiplier;  ///< each plane makes `multiplier` output planes
  const GatherSegment* segments;
  std::size_t segment_count;
  const void* indices;  ///< vectors, aligned
  bool shared;
  std::size_t groups, group_vectors;  ///< index vectors of a pixel vector and group
  const void* weights;                ///< [output planes][groups][group_vectors] dwords: 4 s8, 2 s16 or 1 f32
  const void* epilogue;               ///< EpilogueS8 or EpilogueF32 at the first output plane's channel
  void* out;                          ///< [output planes][positions]
  std::size_t positions;
  std::uint8_t padding, flip;  ///< s8: what padding reads; then each byte is XORed with `flip` to be u8
};

/// A way of gathering; `run` is null where the level has none.
struct GatherKernel {
  std::size_t lanes;    ///< output pixels of a vector
  std::size_t vectors;  ///< of a block
  std::size_t taps;     ///< of a pixel in an index vector
  std::size_t most;     ///< output pixels up to which it is faster than staging where columns have no stride
  std::size_t most_strided;  ///< and where they have one
  void (*run)(const DepthwiseGatherJob& job);
};

/// Some planes under a kernel of 3 x 3 with a padding of one.
struct DepthwiseStripsJob {
  const void* source;  ///< [planes][rows][columns], u8 or f32
  std::size_t planes, rows, columns;
  std::size_t stride;              ///< 1 or 2, of rows and of columns
  const void* weights;             ///< [planes], StripsKernelS8::pack's, or f32 [planes][9]
  const void* epilogue;            ///< EpilogueS8 or EpilogueF32 at the first plane's channel
  void* out;                       ///< [planes][ceil(rows / stride)][ceil(columns / stride)]
  std::uint8_t padding = 0;        ///< s8: what padding reads
  std::size_t readable_slack = 0;  ///< s8: bytes behind the planes that may be read without harm
};

/// A way of convolving u8 in strips; `run` is null where the level has none.
struct StripsKernelS8 {
  /// Whether that is faster than gathering and staging for an output of rows x columns.
  bool (*pays)(std::size_t out_rows, std::size_t out_columns, std::size_t stride);
  std::size_t packed_bytes;  ///< of a plane's weights, a multiple of 4, in storage aligned to 4
  void (*pack)(const std::int8_t* weights, void* packed);
  void (*run)(const DepthwiseStripsJob& job);
};

struct DepthwiseKernels {
  /// The staged int8 source is u8 XOR `flip`, whose shift the driver folds into bias.
  std::uint8_t flip;
  /// Bytes of one channel's packed s8 weights, a multiple of 8, in storage aligned to 8. The driver packs
  /// once: what a kernel has to know of its weights costs as much to find out as a small plane to convolve.
  std::size_t (*packed_s8_bytes)(std::size_t taps);
  void (*pack_s8)(const std::int8_t* weights, std::size_t taps, void* packed);
  /// Exact for every s8 weight, -128 too.
  void (*s8)(const DepthwiseJob& job);
  void (*f32)(const DepthwiseJob& job);
  GatherKernel gather_s8, gather_f32;
  void (*strips_f32)(const DepthwiseStripsJob& job);  ///< null where the level has none
  StripsKernelS8 strips_s8;
};

}  // namespace gristmill
