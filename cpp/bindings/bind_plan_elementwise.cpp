#include <pybind11/stl.h>

#include <limits>

#include "array_views.h"
#include "dense_arguments.h"
#include "gristmill/steps/elementwise.h"
#include "gristmill/steps/pool.h"
#include "plan_class.h"

namespace py = pybind11;

namespace gristmill {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

using Numbers = std::vector<std::int64_t>;

PoolKind parse_pool_kind(const std::string& name) {
  if (name == "max") return PoolKind::max;
  if (name == "average") return PoolKind::average;
  throw Error(ErrorKind::argument, "kind", "unknown name '" + name + "'; choose one of: max, average");
}

}  // namespace

void bind_elementwise_steps(PlanClass& plan) {
  plan.def(
      "unary",
      [](PlanObject& object, const std::string& name, const std::string& function, const Tensor& x,
         const Tensor& out, float alpha, float beta) {
        object.plan.add(name, [&] { return unary_step(function, x, out, {alpha, beta}); });
      },
      py::arg("name"), py::arg("function"), py::arg("x"), py::arg("out"), py::arg("alpha") = 0.0f,
      py::arg("beta") = 0.0f,
      "out = function(x); alpha and beta are slope and offset, or the bounds of clip. May work in place.");
  plan.def(
      "binary",
      [](PlanObject& object, const std::string& name, const std::string& function, const Tensor& a,
         const Tensor& b, const Tensor& out, float low, float high) {
        object.plan.add(name, [&] { return binary_step(function, a, b, out, {low, high}); });
      },
      py::arg("name"), py::arg("function"), py::arg("a"), py::arg("b"), py::arg("out"),
      py::arg("low") = -kInfinity, py::arg("high") = kInfinity,
      "out = function(a, b), broadcast; float32 `add` is clamped to low..high. May work in place.");
  plan.def(
      "select",
      [](PlanObject& object, const std::string& name, const Tensor& condition, const Tensor& a,
         const Tensor& b,
         const Tensor& out) { object.plan.add(name, [&] { return select_step(condition, a, b, out); }); },
      py::arg("name"), py::arg("condition"), py::arg("a"), py::arg("b"), py::arg("out"),
      "out = a where the condition holds, else b; all broadcast.");
  plan.def(
      "pool",
      [](PlanObject& object, const std::string& name, const std::string& kind, const Tensor& x,
         const Tensor& out, Numbers kernel, Numbers stride, Numbers pad_begin, Numbers pad_end,
         Numbers dilation, bool count_include_pad) {
        object.plan.add(name, [&] {
          return pool_step(parse_pool_kind(kind),
                           {kernel, stride, dilation.empty() ? Numbers(kernel.size(), 1) : dilation,
                            pad_begin.empty() ? Numbers(kernel.size(), 0) : pad_begin,
                            pad_end.empty() ? Numbers(kernel.size(), 0) : pad_end, count_include_pad},
                           x, out);
        });
      },
      py::arg("name"), py::arg("kind"), py::arg("x"), py::arg("out"), py::arg("kernel"), py::arg("stride"),
      py::arg("pad_begin") = Numbers{}, py::arg("pad_end") = Numbers{}, py::arg("dilation") = Numbers{},
      py::arg("count_include_pad") = false,
      "Max or average pooling of (N, C, spatial...); one number for each spatial axis.");
}

}  // namespace gristmill
