#pragma once

#include <cstddef>
#include <cstdint>

#include "epilogue_kernels.h"

/// Depthwise convolution: one plane of pixels, one small kernel, one output plane.
///
/// Too few multiplications per element for panels to pay, so the kernel walks the staged plane itself.
/// Staging (see gristmill/conv.h) has padded the plane and split it by column stride, so that neighbouring
/// output pixels of a row are neighbours in memory for every tap:
///
///     tap t of output pixel (y, x) is at  source + y * source_row_step + x + tap_offset[t]
///
/// Where source_row_step is little more than out_columns, kernels run over the rows as if they were one, and
/// narrow planes cost no more than wide ones: staging does well to split the rows by stride too. The elements
/// between the first and the last that a tap names may therefore be read, and so may the `readable_slack`
/// after the last.
namespace gristmill {

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

struct DepthwiseKernels {
  /// The int8 source is u8 XOR `flip`, whose shift the driver folds into bias.
  std::uint8_t flip;
  /// Bytes of one channel's packed s8 weights, a multiple of 8, in storage aligned to 8. The driver packs
  /// once: what a kernel has to know of its weights costs as much to find out as a small plane to convolve.
  std::size_t (*packed_s8_bytes)(std::size_t taps);
  void (*pack_s8)(const std::int8_t* weights, std::size_t taps, void* packed);
  /// Exact for every s8 weight, -128 too.
  void (*s8)(const DepthwiseJob& job);
  void (*f32)(const DepthwiseJob& job);
};

}  // namespace gristmill
