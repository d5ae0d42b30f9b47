#pragma once

#include <memory>
#include <vector>

#include "gristmill/plan.h"

/// A batch in slices.
///
/// Layers of large images write more than the second-level cache holds long before a batch is through, and
/// the next layer reads it all from further away. A plan for a part of the batch does several layers to that
/// part while it is near:
///
///     whole batch     layer 1 of images 1 2 3 4,  layer 2 of images 1 2 3 4,  ...
///     in slices       layers 1 2 of image 1,  layers 1 2 of image 2,  ...
///
/// Weights are read once for each slice, so that slices suit layers with small weights and large images.
namespace gristmill {

/// Runs `part`, which is frozen, for each slice along the first axis: its inputs and outputs have the types
/// of these tensors but for their first extents, which divide those of the tensors, all as often. As long as
/// there are slices for all threads, each is run by one thread; those that remain are shared by all, one
/// after the other. Allocates nothing but what `part` does at its first runs.
StepPtr slices_step(std::shared_ptr<const Plan> part, const std::vector<Tensor>& inputs,
                    const std::vector<Tensor>& outputs);

/// The most tensors that such a step can read, and write.
inline constexpr std::size_t kMostSliced = 16;

}  // namespace gristmill
