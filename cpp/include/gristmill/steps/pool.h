#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "gristmill/plan.h"

/// Pooling: the greatest or the mean of each window of the spatial axes, of which there are one to three.
namespace gristmill {

enum class PoolKind : std::uint8_t { max, average };

/// One number for each spatial axis.
struct PoolWindow {
  std::vector<std::int64_t> kernel, stride, dilation, pad_begin, pad_end;
  bool count_include_pad = false;  ///< average: padding counts as zeros within the padded size
};

/// x and out are (batch, channels, spatial...). The extents of out are those of ONNX, with ceil_mode or
/// without. Maxima are of f32, u8 or s8, where NaN wins and an empty window yields the least number; means
/// are of f32, where an empty window yields NaN.
StepPtr pool_step(PoolKind kind, const PoolWindow& window, const Tensor& x, const Tensor& out);

}  // namespace gristmill
