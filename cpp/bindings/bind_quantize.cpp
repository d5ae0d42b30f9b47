#include <cstring>
#include <limits>

#include "array_views.h"
#include "bindings.h"
#include "gil.h"
#include "gristmill/quantize.h"

namespace py = pybind11;

namespace gristmill {
namespace {

const ElementType& element_type(QuantType type) { return type == QuantType::u8 ? kUInt8 : kInt8; }

std::string text_of(py::handle object) { return py::str(object).cast<std::string>(); }

/// Whatever numpy takes for a type.
py::dtype parse_dtype(py::handle object) {
  try {
    return py::dtype::from_args(py::reinterpret_borrow<py::object>(object));
  } catch (const py::error_already_set&) {
    throw Error(ErrorKind::dtype, "dtype", "is no numpy type: " + py::repr(object).cast<std::string>());
  }
}

QuantType parse_quant_type(const py::dtype& dtype) {
  for (QuantType type : {QuantType::u8, QuantType::s8})
    if (is_element_type(dtype, element_type(type))) return type;
  throw Error(ErrorKind::dtype, "dtype", "expected uint8 or int8, got " + text_of(dtype));
}

QuantType quant_type_of(const py::array& array, const char* name) {
  for (QuantType type : {QuantType::u8, QuantType::s8})
    if (has_dtype(array, element_type(type))) return type;
  throw Error(ErrorKind::dtype, name, "expected uint8 or int8, got " + text_of(array.dtype()));
}

/// Owns what a QuantParams refers to.
struct ParsedParams {
  std::vector<float> scale;
  std::vector<std::int32_t> zero_point;
  std::optional<std::size_t> axis;
  QuantParams view() const { return {scale, zero_point, axis}; }
};

/// The elements of a checked array of rank 1 whose elements are of type `Stored`.
template <class Value, class Stored = Value>
std::vector<Value> values_of(const py::array& array) {
  std::vector<Value> values(static_cast<std::size_t>(array.size()));
  const auto read = [&values, from = static_cast<const std::byte*>(array.data())](py::ssize_t stride) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      Stored stored;
      std::memcpy(&stored, from + static_cast<py::ssize_t>(i) * stride, sizeof stored);
      values[i] = stored;
    }
  };
  if (array.strides(0) == sizeof(Stored))
    read(sizeof(Stored));
  else
    read(array.strides(0));
  return values;
}

std::vector<float> parse_scale(py::handle object, bool per_channel) {
  if (per_channel) {
    const py::array array = require_array(object, "scale");
    require_dtype(array, kFloat32, "scale");
    require_rank(array, 1, "scale");
    return values_of<float>(array);
  }
  if (py::isinstance<py::array>(object)) require_rank(py::reinterpret_borrow<py::array>(object), 0, "scale");
  const double value = PyFloat_AsDouble(object.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw Error(ErrorKind::dtype, "scale", "expected a number, got " + text_of(py::type::handle_of(object)));
  }
  return {static_cast<float>(value)};
}

std::int32_t parse_zero_point(py::handle object) {
  const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
  if (!index) {
    PyErr_Clear();
    throw Error(ErrorKind::dtype, "zero_point",
                "expected a whole number, got " + py::repr(object).cast<std::string>());
  }
  // Values beyond s32 are beyond every integer type's range too; the extremes stand for them.
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  using Limits = std::numeric_limits<std::int32_t>;
  if (overflow > 0 || value > Limits::max()) return Limits::max();
  if (overflow < 0 || value < Limits::min()) return Limits::min();
  return static_cast<std::int32_t>(value);
}

std::vector<std::int32_t> parse_zero_points(py::handle object, bool per_channel) {
  if (!per_channel || !py::isinstance<py::array>(object)) return {parse_zero_point(object)};
  const py::array array = py::reinterpret_borrow<py::array>(object);
  const char kind = array.dtype().kind();
  if (kind != 'i' && kind != 'u')
    throw Error(ErrorKind::dtype, "zero_point", "expected an integer type, got " + text_of(array.dtype()));
  if (array.ndim() == 0) return {parse_zero_point(object)};
  require_rank(array, 1, "zero_point");
  if (has_dtype(array, kInt32)) return values_of<std::int32_t>(array);
  if (has_dtype(array, kInt8)) return values_of<std::int32_t, std::int8_t>(array);
  if (has_dtype(array, kUInt8)) return values_of<std::int32_t, std::uint8_t>(array);
  std::vector<std::int32_t> values;
  for (py::handle value : array) values.push_back(parse_zero_point(value));
  return values;
}

ParsedParams parse_params(py::handle scale, py::handle zero_point, py::handle axis, const py::array& like) {
  const bool per_channel = !axis.is_none();
  return {parse_scale(scale, per_channel), parse_zero_points(zero_point, per_channel),
          parse_axis(axis, like)};
}

py::array call_quantize(py::handle x, py::handle scale, py::handle zero_point, py::handle dtype,
                        py::handle axis, py::handle out, py::handle threads) {
  const py::array in = require_array(x, "x");
  require_dtype(in, kFloat32, "x");
  const QuantType type = parse_quant_type(parse_dtype(dtype));
  const ParsedParams params = parse_params(scale, zero_point, axis, in);
  const int thread_count = parse_threads(threads);
  const py::array result = require_output(out, in, element_type(type));
  const auto from = view_of<const float>(in);
  const auto to = view_of<std::uint8_t>(result);
  {
    const GilReleased released;
    quantize(from, params.view(), type, to, thread_count);
  }
  return result;
}

py::array call_dequantize(py::handle q, py::handle scale, py::handle zero_point, py::handle axis,
                          py::handle out, py::handle threads) {
  const py::array in = require_array(q, "q");
  const QuantType type = quant_type_of(in, "q");
  const ParsedParams params = parse_params(scale, zero_point, axis, in);
  const int thread_count = parse_threads(threads);
  const py::array result = require_output(out, in, kFloat32);
  const auto from = view_of<const std::uint8_t>(in);
  const auto to = view_of<float>(result);
  {
    const GilReleased released;
    dequantize(from, params.view(), type, to, thread_count);
  }
  return result;
}

py::array call_requantize(py::handle acc, py::handle scale, py::handle zero_point, py::handle dtype,
                          py::handle axis, py::handle out, py::handle threads) {
  const py::array in = require_array(acc, "acc");
  require_dtype(in, kInt32, "acc");
  const py::dtype result_type = parse_dtype(dtype);
  const bool to_float = is_element_type(result_type, kFloat32);
  const QuantType type = to_float ? QuantType::s8 : parse_quant_type(result_type);
  const ParsedParams params = parse_params(scale, zero_point, axis, in);
  const int thread_count = parse_threads(threads);
  const py::array result = require_output(out, in, to_float ? kFloat32 : element_type(type));
  const auto from = view_of<const std::int32_t>(in);
  const auto to_real = view_of<float>(result);
  const auto to_byte = view_of<std::uint8_t>(result);
  {
    const GilReleased released;
    if (to_float)
      rescale(from, params.view(), to_real, thread_count);
    else
      requantize(from, params.view(), type, to_byte, thread_count);
  }
  return result;
}

py::tuple call_min_max(py::handle x, py::handle axis, py::handle threads) {
  const py::array in = require_array(x, "x");
  require_dtype(in, kFloat32, "x");
  const std::optional<std::size_t> along = parse_axis(axis, in);
  const int thread_count = parse_threads(threads);
  std::vector<py::ssize_t> shape;
  if (along) shape.push_back(in.shape(static_cast<py::ssize_t>(*along)));
  py::array_t<float> low(shape), high(shape);
  const std::size_t count = static_cast<std::size_t>(low.size());
  const std::span<float> lows(low.mutable_data(), count), highs(high.mutable_data(), count);
  const auto from = view_of<const float>(in);
  {
    const GilReleased released;
    min_max(from, along, lows, highs, thread_count);
  }
  return py::make_tuple(low, high);
}

py::tuple call_range_qparams(py::handle minimum, py::handle maximum, py::handle dtype, bool symmetric) {
  const py::array low = require_array(minimum, "minimum"), high = require_array(maximum, "maximum");
  require_dtype(low, kFloat32, "minimum");
  require_dtype(high, kFloat32, "maximum");
  require_rank(low, 1, "minimum");
  require_rank(high, 1, "maximum");
  if (low.size() != high.size()) throw Error(ErrorKind::shape, "maximum", "must have the shape of minimum");
  const QuantType type = parse_quant_type(parse_dtype(dtype));
  const auto lows = values_of<float>(low), highs = values_of<float>(high);
  py::array_t<float> scale(low.size());
  py::array_t<std::int32_t> zero_point(low.size());
  for (std::size_t i = 0; i < lows.size(); ++i) try {
      const ScaleAndZeroPoint chosen = choose_qparams(lows[i], highs[i], type, symmetric);
      scale.mutable_at(i) = chosen.scale;
      zero_point.mutable_at(i) = chosen.zero_point;
    } catch (const Error& error) {
      if (lows.size() == 1) throw;
      throw Error(error.kind(), error.where(), "of channel " + std::to_string(i) + " " + error.reason());
    }
  return py::make_tuple(scale, zero_point.attr("astype")(element_type(type).name));
}

}  // namespace

void bind_quantize(py::module_& m) {
  m.def("quantize", call_quantize, py::arg("x"), py::arg("scale"), py::arg("zero_point"), py::arg("dtype"),
        py::arg("axis"), py::arg("out"), py::arg("threads"), "See gristmill.kernels.quantize_per_tensor.");
  m.def("dequantize", call_dequantize, py::arg("q"), py::arg("scale"), py::arg("zero_point"), py::arg("axis"),
        py::arg("out"), py::arg("threads"), "See gristmill.kernels.dequantize_per_tensor.");
  m.def("requantize", call_requantize, py::arg("acc"), py::arg("scale"), py::arg("zero_point"),
        py::arg("dtype"), py::arg("axis"), py::arg("out"), py::arg("threads"),
        "See gristmill.kernels.requantize.");
  m.def("min_max", call_min_max, py::arg("x"), py::arg("axis"), py::arg("threads"),
        "See gristmill.kernels.min_max.");
  m.def("range_qparams", call_range_qparams, py::arg("minimum"), py::arg("maximum"), py::arg("dtype"),
        py::arg("symmetric"),
        "See gristmill.kernels.range_qparams; takes and returns one value per channel.");
}

}  // namespace gristmill
