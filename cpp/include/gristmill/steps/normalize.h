#pragma once

#include <cstdint>

#include "gristmill/plan.h"

/// Normalizations that depend on the values of their neighbours; f32.
namespace gristmill {

struct LrnParameters {
  float alpha = 1e-4f, beta = 0.75f, bias = 1;
  std::int64_t size = 1;  ///< channels that are summed over, about each
};

/// out = x / (bias + alpha / size * sum of squares over `size` channels around)^beta, for (batch, channels,
/// spatial...). Neighbours are floor((size - 1) / 2) before and ceil((size - 1) / 2) after.
StepPtr lrn_step(const Tensor& x, const Tensor& out, const LrnParameters& parameters);

/// Each plane of (batch, channels, spatial...) minus its mean, over the root of its variance + epsilon, times
/// the channel's scale plus its bias; means are taken in f64. May work in place.
StepPtr instance_norm_step(const Tensor& x, const Tensor& scale, const Tensor& bias, const Tensor& out,
                           float epsilon);

}  // namespace gristmill
