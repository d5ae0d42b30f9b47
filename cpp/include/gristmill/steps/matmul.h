#pragma once

#include <cstdint>

#include "gristmill/plan.h"

/// Products of two activations; a layer whose weights are known is a linear_step.
namespace gristmill {

/// out[..., m, n] = sum over k of (a[..., m, k] - a_zero_point) * (b[..., k, n] - b_zero_point), the leading
/// axes broadcast. a, b and out are f32, or a and b are u8 or s8 and out is s32. Throws Error(limit) if an
/// int32 sum could overflow.
StepPtr matmul_step(const Tensor& a, const Tensor& b, const Tensor& out, std::int32_t a_zero_point = 0,
                    std::int32_t b_zero_point = 0);

}  // namespace gristmill
