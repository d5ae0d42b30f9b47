#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "gristmill/plan.h"

/// Plans at the boundary: what bind_plan.cpp and the files that bind steps share.
namespace gristmill {

/// A plan, and what makes its runs quick to start.
struct PlanObject {
  PlanObject(std::size_t arena_bytes, std::vector<TensorType> inputs, std::vector<TensorType> outputs);

  Plan plan;
  std::vector<pybind11::dtype> output_dtypes;
};

/// Shared with the plans that run it as a part.
using PlanClass = pybind11::class_<PlanObject, std::shared_ptr<PlanObject>>;

/// A view of anything that names elements: a Tensor is all of itself.
TensorView parse_view(pybind11::handle object, const char* name);

/// An element type by its numpy name; Error(dtype) otherwise.
DType parse_dtype_name(const std::string& name, const char* argument);

/// Whole numbers >= 0.
std::vector<std::size_t> parse_shape(pybind11::handle object, const char* name);

/// Add the methods of each family of steps.
void bind_layer_steps(PlanClass& plan);
void bind_elementwise_steps(PlanClass& plan);
void bind_copy_steps(PlanClass& plan);
void bind_reduce_steps(PlanClass& plan);
void bind_quantized_steps(PlanClass& plan);
void bind_resize_steps(PlanClass& plan);
void bind_slices_step(PlanClass& plan);

}  // namespace gristmill
