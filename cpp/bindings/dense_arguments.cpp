#include "dense_arguments.h"

#include <pybind11/stl.h>

#include <algorithm>

#include "checked_size.h"
#include "gristmill/tensor.h"

namespace py = pybind11;

namespace gristmill {
namespace {

DType type_among(const py::array& array, std::initializer_list<DType> allowed, const char* name) {
  std::string names;
  for (DType type : allowed) {
    if (has_dtype(array, element_type(type))) return type;
    names += (names.empty() ? "" : " or ") + std::string(dtype_name(type));
  }
  throw Error(ErrorKind::dtype, name,
              "expected " + names + ", got " + py::str(array.dtype()).cast<std::string>());
}

void require_shape(const py::array& array, const std::vector<std::size_t>& shape, const char* name) {
  const std::vector<std::size_t> actual(array.shape(), array.shape() + array.ndim());
  if (actual != shape)
    throw Error(ErrorKind::shape, name,
                "expected shape " + shape_text(shape) + ", got " + shape_text(actual));
}

/// Both in C order.
bool overlap(const py::array& a, const py::array& b) {
  const auto* a_low = static_cast<const std::byte*>(a.data());
  const auto* b_low = static_cast<const std::byte*>(b.data());
  return a_low < b_low + b.nbytes() && b_low < a_low + a.nbytes();
}

std::vector<long> parse_integers(py::handle object, const char* name) {
  if (!py::isinstance<py::sequence>(object) || py::isinstance<py::array>(object))
    return {parse_integer(object, name)};
  std::vector<long> values;
  for (py::handle item : py::reinterpret_borrow<py::sequence>(object))
    values.push_back(parse_integer(item, name));
  return values;
}

/// A vector of channels or one number, as values of T.
template <class T>
std::vector<T> parse_values(py::handle object, const ElementType& type, const char* name) {
  const py::array array = contiguous(object, name);
  require_dtype(array, type, name);
  if (array.ndim() > 1) require_rank(array, 1, name);
  const T* data = static_cast<const T*>(array.data());
  return {data, data + array.size()};
}

std::vector<float> parse_scale(py::handle object) {
  if (py::isinstance<py::float_>(object) && !py::isinstance<py::array>(object))
    return {static_cast<float>(object.cast<double>())};
  return parse_values<float>(object, kFloat32, "scale");
}

template <class Enum, std::size_t count>
Enum parse_name(const std::string& name, const std::array<const char*, count>& names, const char* argument) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return static_cast<Enum>(found - names.begin());
  std::string known;
  for (const char* one : names) known += (known.empty() ? "" : ", ") + std::string(one);
  throw Error(ErrorKind::argument, argument, "unknown name '" + name + "'; choose one of: " + known);
}

constexpr std::array<const char*, 4> kOutputNames{"uint8", "int8", "int32", "float32"};
constexpr std::array<const char*, 8> kActivationNames{"none",        "relu",      "clip",    "leaky_relu",
                                                      "hardsigmoid", "hardswish", "sigmoid", "silu"};

using Quantization = std::optional<std::pair<float, std::int32_t>>;

ScaleAndZeroPoint quantization(const Quantization& pair) {
  return pair ? ScaleAndZeroPoint{pair->first, pair->second} : ScaleAndZeroPoint{1, 0};
}

Activation activation(const std::string& name, float low, float high, float alpha, const char* argument) {
  return {parse_name<ActivationKind>(name, kActivationNames, argument), low, high, alpha};
}

/// (name, low, high)
using Clamp = std::tuple<std::string, float, float>;

std::unique_ptr<EpilogueSpec> make_epilogue(const std::string& output, py::handle bias, py::handle scale,
                                            std::int32_t zero_point, float output_scale,
                                            const std::string& activation_name, float low, float high,
                                            float alpha, const Quantization& activation_output) {
  auto spec = std::make_unique<EpilogueSpec>();
  Epilogue& e = spec->epilogue;
  e.output = parse_name<DType>(output, kOutputNames, "output");
  if (!bias.is_none()) {
    if (type_among(contiguous(bias, "bias"), {DType::s32, DType::f32}, "bias") == DType::s32)
      spec->bias = parse_values<std::int32_t>(bias, kInt32, "bias");
    else
      spec->bias_f32 = parse_values<float>(bias, kFloat32, "bias");
  }
  if (!scale.is_none()) spec->scale = parse_scale(scale);
  e.bias = spec->bias;
  e.bias_f32 = spec->bias_f32;
  e.scale = spec->scale;
  e.zero_point = zero_point;
  e.output_scale = output_scale;
  e.activation = activation(activation_name, low, high, alpha, "activation");
  if (activation_output) e.activation_output = quantization(activation_output);
  return spec;
}

}  // namespace

std::shared_ptr<const OutputStage> EpilogueSpec::stage(std::size_t channels, bool f32_layer) {
  if (!stage_ || stage_->channels() != channels || stage_->f32_layer() != f32_layer)
    stage_ = std::make_shared<const OutputStage>(epilogue, channels, f32_layer);
  return stage_;
}

py::array contiguous(py::handle object, const char* name) {
  const py::array array = require_array(object, name);
  if ((array.flags() & py::array::c_style) != 0) return array;
  return py::module_::import("numpy").attr("ascontiguousarray")(array);
}

DType weight_type(const py::array& array) { return type_among(array, {DType::s8, DType::f32}, "weights"); }

DType activation_type(const py::array& array) {
  return type_among(array, {DType::u8, DType::s8, DType::f32}, "x");
}

long parse_bounded(py::handle object, long least, long most, const char* name) {
  const long value = parse_integer(object, name);
  if (value >= least && value <= most) return value;
  throw Error(
      ErrorKind::argument, name,
      "expected " + std::to_string(least) + " to " + std::to_string(most) + ", got " + std::to_string(value));
}

std::pair<long, long> parse_pair(py::handle object, const char* name) {
  const std::vector<long> values = parse_integers(object, name);
  if (values.size() == 1) return {values[0], values[0]};
  if (values.size() == 2) return {values[0], values[1]};
  throw Error(ErrorKind::argument, name, "expected one or two numbers, got " + std::to_string(values.size()));
}

std::array<long, 4> parse_padding(py::handle object) {
  const std::vector<long> v = parse_integers(object, "padding");
  if (v.size() == 1) return {v[0], v[0], v[0], v[0]};
  if (v.size() == 2) return {v[0], v[1], v[0], v[1]};
  if (v.size() == 4) return {v[0], v[1], v[2], v[3]};
  throw Error(ErrorKind::argument, "padding",
              "expected one, two or four numbers, got " + std::to_string(v.size()));
}

std::shared_ptr<const OutputStage> stage_for(EpilogueSpec* spec, std::size_t channels, bool f32_layer) {
  if (spec != nullptr) return spec->stage(channels, f32_layer);
  Epilogue plain;
  plain.output = f32_layer ? DType::f32 : DType::s32;
  return std::make_shared<const OutputStage>(plain, channels, f32_layer);
}

std::optional<py::array> residual_for(py::handle residual, const OutputStage& stage,
                                      const std::vector<std::size_t>& shape) {
  if (stage.has_residual() == residual.is_none())
    throw Error(ErrorKind::argument, "residual", "needed exactly when the epilogue has a residual");
  if (residual.is_none()) return std::nullopt;
  const py::array array = contiguous(residual, "residual");
  require_dtype(array, element_type(stage.residual_type()), "residual");
  require_shape(array, shape, "residual");
  return array;
}

py::array output_for(py::handle out, const std::vector<std::size_t>& shape, DType type,
                     std::initializer_list<const py::array*> inputs) {
  if (out.is_none()) {
    std::size_t bytes = sizeof(double);  // whatever the type
    for (std::size_t extent : shape) bytes = checked_product({bytes, extent}, "x");
    return py::array(py::dtype(element_type(type).name), shape);
  }
  const py::array array = require_array(out, "out");
  require_dtype(array, element_type(type), "out");
  require_shape(array, shape, "out");
  if (!array.writeable()) throw Error(ErrorKind::argument, "out", "is read-only");
  if ((array.flags() & py::array::c_style) == 0)
    throw Error(ErrorKind::argument, "out", "is not contiguous in C order");
  for (const py::array* input : inputs) {
    if (input != nullptr && overlap(array, *input))
      throw Error(ErrorKind::argument, "out", "shares memory with an input");
  }
  return array;
}

void bind_epilogue(py::module_& m) {
  py::class_<EpilogueSpec> cls(m, "Epilogue", py::is_final(), plain_metaclass(),
                               "See gristmill.kernels.Epilogue.");
  cls.def(py::init(&make_epilogue), py::arg("output"), py::arg("bias"), py::arg("scale"),
          py::arg("zero_point"), py::arg("output_scale"), py::arg("activation"), py::arg("low"),
          py::arg("high"), py::arg("alpha"), py::arg("activation_output"));
  cls.def(
      "add_residual",
      [](EpilogueSpec& spec, const std::string& dtype, const Quantization& added, const Quantization& sum,
         const Clamp& clamp, bool first) {
        ResidualAdd add;
        add.type = parse_name<DType>(dtype, kOutputNames, "residual dtype");
        add.quantization = quantization(added);
        add.sum = quantization(sum);
        add.activation =
            activation(std::get<0>(clamp), std::get<1>(clamp), std::get<2>(clamp), 0, "residual activation");
        add.first = first;
        spec.epilogue.residual = add;
      },
      py::arg("dtype"), py::arg("quantization"), py::arg("result"), py::arg("activation"), py::arg("first"),
      "Adds a residual of that type and quantization; the sum has a quantization and a clamp of its own.");
}

}  // namespace gristmill
