#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gristmill/steps/resize.h"

namespace gristmill {

/// Interpolation along one axis: output o is the sum over taps t of weight[o * taps + t] * x[index[o * taps +
/// t]], unless it lies outside.
struct ResizeAxis {
  std::size_t in = 1, out = 1, taps = 1;
  std::vector<std::size_t> index{0};
  std::vector<float> weight{1.0f};
  std::vector<std::uint8_t> outside{0};

  bool identity = true;
};

/// The axis `axis` of a resize from extent `in` to `out`, neither of which is 0. Throws Error(argument) for
/// unknown names.
ResizeAxis make_resize_axis(const ResizeParameters& parameters, std::size_t axis, std::size_t in,
                            std::size_t out);

}  // namespace gristmill
