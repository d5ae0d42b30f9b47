#pragma once

#include <array>
#include <cstddef>

#include "gristmill/plan.h"

/// Moving elements without computing anything.
namespace gristmill {

/// Copies one view to another of the same shape and element type: transpose, slice, concat, split, expand,
/// depth to space, and the inside of a padded tensor are all this. No two elements of `out` may share memory.
StepPtr copy_step(const TensorView& x, const TensorView& out);

/// Writes one value to all elements of a view. `value` holds element_size bytes.
StepPtr fill_step(const TensorView& out, const std::array<std::byte, 8>& value);

}  // namespace gristmill
