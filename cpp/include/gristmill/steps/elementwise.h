#pragma once

#include <limits>
#include <string_view>
#include <vector>

#include "gristmill/plan.h"

/// Functions of each element by itself.
///
/// f32 functions follow ONNX; NaN stays NaN. Integers wrap around; x / 0 and x mod 0 are 0.
namespace gristmill {

/// Parameters of functions that have some.
struct UnaryParameters {
  float alpha = 0;  ///< slope of curves; clip: lower bound; thresholded_relu: what passes is greater
  float beta = 0;   ///< hardsigmoid: offset; selu: gain; clip: upper bound
};

/// out = function(x), of equal shapes; may work in place. Throws Error(argument) for an unknown name and
/// Error(dtype) for a type that the function does not take.
StepPtr unary_step(std::string_view function, const Tensor& x, const Tensor& out,
                   const UnaryParameters& parameters);

/// What a sum of f32 is clamped to.
struct SumClamp {
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();
};

/// out = function(a, b), both broadcast to the shape of out as numpy does; may work in place on an operand
/// that is not broadcast. Only `add` of f32 takes a clamp.
StepPtr binary_step(std::string_view function, const Tensor& a, const Tensor& b, const Tensor& out,
                    const SumClamp& clamp = {});

/// out = condition ? a : b, all broadcast; the condition is boolean, the others are of one type.
StepPtr select_step(const Tensor& condition, const Tensor& a, const Tensor& b, const Tensor& out);

}  // namespace gristmill
