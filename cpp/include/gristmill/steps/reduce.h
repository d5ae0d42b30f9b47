#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "gristmill/plan.h"

/// Functions of all elements along some axes. Axes may count from the back.
namespace gristmill {

/// `sum`, `mean`, `max`, `min` or `prod` over `axes`, without which over all. The shape of out is that of x
/// with the reduced axes 1, or without them. f32 takes all; s32 and s64 take all but `mean`; u8 and s8 take
/// `max` and `min`. NaN in x makes NaN. No elements at all reduce to what any value may be combined with: 0
/// for `sum`, the least number for `max`, NaN for `mean`.
StepPtr reduce_step(std::string_view function, const Tensor& x, const Tensor& out,
                    const std::vector<std::int64_t>& axes);

/// Softmax of f32 along an axis, or its logarithm; may work in place.
StepPtr softmax_step(const Tensor& x, const Tensor& out, std::int64_t axis, bool logarithm);

/// Which of equal extremes is meant.
enum class Tie : std::uint8_t { first, last };

/// The index of the greatest (or least) element along an axis, as s64; x is f32, s32, s64, u8 or s8, and the
/// first NaN is the extreme. The shape of out is as for reduce_step.
StepPtr arg_extreme_step(const Tensor& x, const Tensor& out, std::int64_t axis, bool greatest, Tie tie);

/// The k greatest (or least) elements along an axis in order, k being that axis of the outputs, and their
/// indices as s64. Equal elements come in order of their indices; NaN counts as the greatest. x is f32, s32
/// or s64.
StepPtr top_k_step(const Tensor& x, const Tensor& values, const Tensor& indices, std::int64_t axis,
                   bool greatest);

}  // namespace gristmill
