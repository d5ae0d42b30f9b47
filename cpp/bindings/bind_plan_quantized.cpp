#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "array_views.h"
#include "dense_arguments.h"
#include "gristmill/steps/quantized.h"
#include "gristmill/steps/resize.h"
#include "plan_class.h"

namespace py = pybind11;

namespace gristmill {
namespace {

using Numbers = std::vector<std::int64_t>;
using Map = std::pair<float, std::int32_t>;  // scale and zero point

QuantizedTensor quantized(const Tensor& tensor, const Map& map) { return {tensor, {map.first, map.second}}; }

using MakeConversion = StepPtr (*)(const Tensor&, const Tensor&, const Quantization&);

void bind_conversion(PlanClass& plan, const char* method, MakeConversion make, const char* doc) {
  plan.def(
      method,
      [make](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out,
             std::vector<float> scale, std::vector<std::int32_t> zero_point,
             std::optional<std::int64_t> axis) {
        object.plan.add(name, [&] { return make(x, out, {scale, zero_point, axis}); });
      },
      py::arg("name"), py::arg("x"), py::arg("out"), py::arg("scale"), py::arg("zero_point"),
      py::arg("axis") = py::none(), doc);
}

std::array<std::uint8_t, 256> parse_table(py::handle object) {
  const py::array array = contiguous(object, "table");
  if (!has_dtype(array, kUInt8) && !has_dtype(array, kInt8)) require_dtype(array, kUInt8, "table");
  std::array<std::uint8_t, 256> table{};
  if (array.ndim() != 1 || array.size() != 256)
    throw Error(ErrorKind::shape, "table", "expected 256 elements");
  std::memcpy(table.data(), array.data(), table.size());
  return table;
}

QuantizedFunction parse_function(const std::string& name) {
  if (name == "add") return QuantizedFunction::add;
  if (name == "mul") return QuantizedFunction::mul;
  throw Error(ErrorKind::argument, "function", "unknown name '" + name + "'; choose one of: add, mul");
}

}  // namespace

void bind_quantized_steps(PlanClass& plan) {
  bind_conversion(plan, "quantize", quantize_step,
                  "float32 to uint8 or int8; one map, or one for each channel.");
  bind_conversion(plan, "dequantize", dequantize_step, "uint8, int8 or int32 to float32.");
  bind_conversion(plan, "requantize", requantize_step, "int32 to uint8 or int8, by one multiplication.");
  plan.def(
      "dynamic_quantize",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out, const Tensor& scale,
         const Tensor& zero_point) {
        object.plan.add(name, [&] { return dynamic_quantize_step(x, out, scale, zero_point); });
      },
      py::arg("name"), py::arg("x"), py::arg("out"), py::arg("scale"), py::arg("zero_point"),
      "float32 to uint8 with a map that is chosen from its range and written too.");
  plan.def(
      "lookup",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out, py::handle table) {
        object.plan.add(name, [&] { return lookup_step(x, out, parse_table(table)); });
      },
      py::arg("name"), py::arg("x"), py::arg("out"), py::arg("table"),
      "out = table[x as uint8], 256 bytes. May work in place.");
  plan.def(
      "qbinary",
      [](PlanObject& object, const std::string& name, const std::string& function, const Tensor& a,
         const Tensor& b, const Tensor& out, Map a_map, Map b_map, Map out_map) {
        object.plan.add(name, [&] {
          return quantized_binary_step(parse_function(function), quantized(a, a_map), quantized(b, b_map),
                                       quantized(out, out_map));
        });
      },
      py::arg("name"), py::arg("function"), py::arg("a"), py::arg("b"), py::arg("out"), py::arg("a_map"),
      py::arg("b_map"), py::arg("out_map"),
      "add or mul of bytes, broadcast; maps are (scale, zero point). May work in place.");
  plan.def(
      "qglobal_average",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out, Map x_map,
         Map out_map) {
        object.plan.add(name, [&] {
          return quantized_global_average_step(quantized(x, x_map), quantized(out, out_map));
        });
      },
      py::arg("name"), py::arg("x"), py::arg("out"), py::arg("x_map"), py::arg("out_map"),
      "Mean of each plane of bytes (N, C, spatial...); maps are (scale, zero point).");
  plan.def(
      "qaverage",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out, Numbers kernel,
         Numbers stride, Numbers pad_begin, Numbers pad_end, Numbers dilation, bool count_include_pad,
         Map x_map, Map out_map) {
        object.plan.add(name, [&] {
          return quantized_average_step({kernel, stride, dilation, pad_begin, pad_end, count_include_pad},
                                        quantized(x, x_map), quantized(out, out_map));
        });
      },
      py::arg("name"), py::arg("x"), py::arg("out"), py::arg("kernel"), py::arg("stride"),
      py::arg("pad_begin"), py::arg("pad_end"), py::arg("dilation"), py::arg("count_include_pad"),
      py::arg("x_map"), py::arg("out_map"),
      "Mean of each window of bytes (N, C, spatial...); one number for each spatial axis.");
  plan.def(
      "qsoftmax",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out, std::int64_t axis,
         const SoftmaxPowers& powers, float steps, std::int32_t zero_point) {
        object.plan.add(name,
                        [&] { return quantized_softmax_step(x, out, axis, powers, steps, zero_point); });
      },
      py::arg("name"), py::arg("x"), py::arg("out"), py::arg("axis"), py::arg("powers"), py::arg("steps"),
      py::arg("zero_point"),
      "Softmax of bytes by a table of powers, in that many steps to one. May work in place.");
}

void bind_resize_steps(PlanClass& plan) {
  plan.def(
      "resize",
      [](PlanObject& object, const std::string& name, const Tensor& x, const Tensor& out,
         const std::string& mode, const std::string& coordinates, const std::string& rounding, float cubic_a,
         bool exclude_outside, float extrapolation, std::vector<float> scales, std::vector<float> roi_start,
         std::vector<float> roi_end) {
        object.plan.add(name, [&] {
          return resize_step(x, out,
                             {mode, coordinates, rounding, cubic_a, exclude_outside, extrapolation, scales,
                              roi_start, roi_end});
        });
      },
      py::arg("name"), py::arg("x"), py::arg("out"), py::arg("mode"), py::arg("coordinates") = "half_pixel",
      py::arg("rounding") = "round_prefer_floor", py::arg("cubic_a") = -0.75f,
      py::arg("exclude_outside") = false, py::arg("extrapolation") = 0.0f,
      py::arg("scales") = std::vector<float>{}, py::arg("roi_start") = std::vector<float>{},
      py::arg("roi_end") = std::vector<float>{},
      "Resize by nearest, linear or cubic interpolation, with the attributes of ONNX's Resize.");
}

}  // namespace gristmill
