#include <pybind11/stl.h>

#include <vector>

#include "array_views.h"
#include "dense_arguments.h"
#include "gristmill/steps/index.h"
#include "gristmill/steps/matmul.h"
#include "gristmill/steps/normalize.h"
#include "gristmill/steps/reduce.h"
#include "plan_class.h"

namespace py = pybind11;

namespace gristmill {
namespace {

using Axes = std::vector<std::int64_t>;

void bind_reductions(PlanClass& plan) {
  plan.def(
      "reduce",
      [](PlanObject& object, const std::string& name, const std::string& function, const Tensor& x,
         const Tensor& out,
         const Axes& axes) { object.plan.add(name, [&] { return reduce_step(function, x, out, axes); }); },
      py::arg("name"), py::arg("function"), py::arg("x"), py::arg("out"), py::arg("axes") = Axes{},
      "sum, mean, max, min or prod over axes (all without any); out keeps them as 1 or drops them.");
  plan.def(
      "softmax",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out, std::int64_t axis,
         bool logarithm) { object.plan.add(name, [&] { return softmax_step(x, out, axis, logarithm); }); },
      py::arg("name"), py::arg("x"), py::arg("out"), py::arg("axis") = -1, py::arg("logarithm") = false,
      "Softmax, or its logarithm, of float32 along an axis. May work in place.");
  plan.def(
      "argmax",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out, std::int64_t axis,
         bool greatest, bool last) {
        object.plan.add(
            name, [&] { return arg_extreme_step(x, out, axis, greatest, last ? Tie::last : Tie::first); });
      },
      py::arg("name"), py::arg("x"), py::arg("out"), py::arg("axis"), py::arg("greatest") = true,
      py::arg("last") = false,
      "int64 index of the greatest (least) element along an axis, the first or last of equals.");
  plan.def(
      "topk",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& values,
         const Tensor& indices, std::int64_t axis, bool greatest) {
        object.plan.add(name, [&] { return top_k_step(x, values, indices, axis, greatest); });
      },
      py::arg("name"), py::arg("x"), py::arg("values"), py::arg("indices"), py::arg("axis") = -1,
      py::arg("greatest") = true,
      "The greatest (least) elements along an axis, in order, and their int64 indices.");
}

void bind_normalizations(PlanClass& plan) {
  plan.def(
      "lrn",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out, std::int64_t size,
         float alpha, float beta, float bias) {
        object.plan.add(name, [&] { return lrn_step(x, out, {alpha, beta, bias, size}); });
      },
      py::arg("name"), py::arg("x"), py::arg("out"), py::arg("size"), py::arg("alpha"), py::arg("beta"),
      py::arg("bias"), "Local response normalization of (N, C, spatial...).");
  plan.def(
      "instance_norm",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& scale,
         const Tensor& bias, const Tensor& out, float epsilon) {
        object.plan.add(name, [&] { return instance_norm_step(x, scale, bias, out, epsilon); });
      },
      py::arg("name"), py::arg("x"), py::arg("scale"), py::arg("bias"), py::arg("out"), py::arg("epsilon"),
      "Each plane of (N, C, spatial...) with mean 0 and variance 1, then scaled. May work in place.");
}

}  // namespace

void bind_reduce_steps(PlanClass& plan) {
  bind_reductions(plan);
  bind_normalizations(plan);
  plan.def(
      "gather",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& indices,
         const Tensor& out,
         std::int64_t axis) { object.plan.add(name, [&] { return gather_step(x, indices, out, axis); }); },
      py::arg("name"), py::arg("x"), py::arg("indices"), py::arg("out"), py::arg("axis") = 0,
      "out = x taken at int32 or int64 indices along an axis.");
  plan.def(
      "cast",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out) {
        object.plan.add(name, [&] { return cast_step(x, out); });
      },
      py::arg("name"), py::arg("x"), py::arg("out"),
      "out = x as the type of out: reals are truncated and saturate, integers wrap around.");
  plan.def(
      "matmul",
      [](PlanObject& object, const std::string& name, const Tensor& a, const Tensor& b, const Tensor& out,
         py::handle a_zero_point, py::handle b_zero_point) {
        object.plan.add(name, [&] {
          return matmul_step(
              a, b, out, static_cast<std::int32_t>(parse_bounded(a_zero_point, -128, 255, "a_zero_point")),
              static_cast<std::int32_t>(parse_bounded(b_zero_point, -128, 255, "b_zero_point")));
        });
      },
      py::arg("name"), py::arg("a"), py::arg("b"), py::arg("out"), py::arg("a_zero_point") = 0,
      py::arg("b_zero_point") = 0, "Batched product of two tensors: float32, or bytes to int32.");
}

}  // namespace gristmill
