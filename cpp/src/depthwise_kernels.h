#pragma once

#include <cstddef>
#include <cstdint>

#include "epilogue.h"

/// Depthwise convolution: one plane of pixels, one small kernel, one output plane.
///
/// Too few multiplications per element for panels to pay, so the kernel walks the staged plane itself.
/// Staging (see gristmill/conv.h) has padded the plane and split it by column stride, so that neighbouring
/// output pixels of a row are neighbours in memory for every tap:
///
///     tap t of output pixel (y, x) is at  source + y * source_row_step + x + tap_offset[t]
namespace gristmill {

struct DepthwiseJob {
  const void* source;
  std::size_t source_row_step;    ///< elements between the sources of two output rows
  const std::size_t* tap_offset;  ///< [taps]; taps of a kernel row are consecutive
  const void* weights;            ///< [taps], s8 or f32
  std::size_t taps, taps_per_row;
  std::size_t out_rows, out_columns;
  const void* epilogue;  ///< EpilogueS8 or EpilogueF32 at this plane's channel
  void* out;             ///< [out_rows][out_columns], contiguous
  /// Elements after the last source element that may be read without harm; staging always leaves at least 64.
  std::size_t readable_slack;
};

struct DepthwiseKernels {
  /// Exact for every s8 weight; the source is u8 XOR `flip`, whose shift the driver folds into bias.
  std::uint8_t flip;
  void (*s8)(const DepthwiseJob& job);
  void (*f32)(const DepthwiseJob& job);
};

}  // namespace gristmill
