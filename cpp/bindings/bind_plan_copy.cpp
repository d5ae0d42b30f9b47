#include <array>
#include <cstring>
#include <limits>

#include "array_views.h"
#include "dense_arguments.h"
#include "gristmill/steps/copy.h"
#include "plan_class.h"

namespace py = pybind11;

namespace gristmill {
namespace {

template <class T>
std::array<std::byte, 8> bytes_of(T value) {
  std::array<std::byte, 8> bytes{};
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

template <class T>
std::array<std::byte, 8> integer_bytes(py::handle value) {
  return bytes_of(static_cast<T>(
      parse_bounded(value, std::numeric_limits<T>::min(), std::numeric_limits<T>::max(), "value")));
}

/// A number of Python as an element.
std::array<std::byte, 8> element_bytes(py::handle value, DType type) {
  switch (type) {
    case DType::u8:
      return integer_bytes<std::uint8_t>(value);
    case DType::s8:
      return integer_bytes<std::int8_t>(value);
    case DType::s32:
      return integer_bytes<std::int32_t>(value);
    case DType::s64:
      return integer_bytes<std::int64_t>(value);
    case DType::boolean:
      return bytes_of(static_cast<std::uint8_t>(parse_bounded(value, 0, 1, "value")));
    case DType::f32:
      break;
  }
  const double number = PyFloat_AsDouble(value.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw Error(ErrorKind::dtype, "value", "expected a number");
  }
  return bytes_of(static_cast<float>(number));
}

}  // namespace

void bind_copy_steps(PlanClass& plan) {
  plan.def(
      "copy",
      [](PlanObject& object, const std::string& name, py::handle x, py::handle out) {
        object.plan.add(name, [&] { return copy_step(parse_view(x, "x"), parse_view(out, "out")); });
      },
      py::arg("name"), py::arg("x"), py::arg("out"),
      "Copy a Tensor or TensorView to another of the same shape: transpose, slice, concat, split, expand...");
  plan.def(
      "fill",
      [](PlanObject& object, const std::string& name, py::handle out, py::handle value) {
        object.plan.add(name, [&] {
          const TensorView view = parse_view(out, "out");
          return fill_step(view, element_bytes(value, view.tensor.dtype()));
        });
      },
      py::arg("name"), py::arg("out"), py::arg("value"), "Write one number to all elements.");
}

}  // namespace gristmill
