#include "array_views.h"
#include "dense_arguments.h"
#include "gristmill/steps/layers.h"
#include "plan_class.h"

namespace py = pybind11;

namespace gristmill {
namespace {

/// Adds the step of a layer of either kind.
template <class Packed, class Make>
void add_layer(PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out,
               const Packed& weights, EpilogueSpec* epilogue, py::handle zero_point, const Tensor* residual,
               Make make) {
  object.plan.add(name, [&] {
    LayerInput input{x, 0, nullptr, residual};
    if (py::isinstance<Tensor>(zero_point))
      input.zero_point_tensor = &zero_point.cast<const Tensor&>();
    else
      input.zero_point = static_cast<std::int32_t>(parse_bounded(zero_point, -128, 255, "x_zero_point"));
    return make(input, out, weights, stage_for(epilogue, weights->out_channels(), weights->is_f32()));
  });
}

}  // namespace

void bind_layer_steps(PlanClass& plan) {
  plan.def(
      "conv",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out, py::handle weights,
         EpilogueSpec* epilogue, py::handle zero_point, const Tensor* residual) {
        add_layer(object, name, x, out, packed_conv(weights), epilogue, zero_point, residual, conv_step);
      },
      py::arg("name"), py::arg("x"), py::arg("out"), py::arg("weights"), py::arg("epilogue") = py::none(),
      py::arg("x_zero_point") = 0, py::arg("residual") = py::none(),
      "A convolution (N, C, H, W), as conv2d().");
  plan.def(
      "linear",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out, py::handle weights,
         EpilogueSpec* epilogue, py::handle zero_point, const Tensor* residual) {
        add_layer(object, name, x, out, packed_linear(weights), epilogue, zero_point, residual, linear_step);
      },
      py::arg("name"), py::arg("x"), py::arg("out"), py::arg("weights"), py::arg("epilogue") = py::none(),
      py::arg("x_zero_point") = 0, py::arg("residual") = py::none(),
      "A linear layer over the last axis (PackedLinear or PackedGemm), as linear() and gemm().");
}

}  // namespace gristmill
