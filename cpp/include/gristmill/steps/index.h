#pragma once

#include <cstdint>

#include "gristmill/plan.h"

/// Elements by their position, and elements of other types.
namespace gristmill {

/// out = x taken at `indices` (s32 or s64, negative ones from the end) along an axis, which the axes of
/// indices replace. A run throws Error(argument) for an index out of range.
StepPtr gather_step(const Tensor& x, const Tensor& indices, const Tensor& out, std::int64_t axis);

/// out = x as the type of out. Reals become integers by truncation and saturate, NaN becomes 0; integers wrap
/// around; anything but 0 becomes true.
StepPtr cast_step(const Tensor& x, const Tensor& out);

}  // namespace gristmill
