#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "checked_size.h"
#include "gristmill/steps/pool.h"

namespace gristmill {

/// One spatial axis of a pooling: output o covers input o * stride + tap * dilation - before.
struct PoolAxis {
  std::size_t in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, before = 0, after = 0;

  /// The taps [first, second) that fall on input [-low, in + high) for an output.
  std::array<std::size_t, 2> taps(std::size_t o, std::size_t low, std::size_t high) const {
    const std::size_t origin = o * stride + low;  // of tap 0, in the frame that starts at `before`
    const std::size_t first = origin >= before ? 0 : ceil_div(before - origin, dilation);
    const std::size_t end = in + before + high;
    const std::size_t start = o * stride;
    const std::size_t last = start >= end ? 0 : ceil_div(end - start, dilation);
    return {std::min(first, kernel), std::clamp(last, std::min(first, kernel), kernel)};
  }
  std::array<std::size_t, 2> inside(std::size_t o) const { return taps(o, 0, 0); }
  std::size_t counted(std::size_t o, bool with_padding) const {
    const auto [first, last] = taps(o, with_padding ? before : 0, with_padding ? after : 0);
    return last - first;
  }
};

using PoolAxes = std::array<PoolAxis, 3>;  // missing ones come first and have extent 1

/// Throws Error naming what contradicts the shapes of x and out.
PoolAxes pool_axes(const PoolWindow& window, const Tensor& x, const Tensor& out);

}  // namespace gristmill
