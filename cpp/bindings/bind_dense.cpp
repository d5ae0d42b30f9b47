#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "array_views.h"
#include "bindings.h"
#include "dense_arguments.h"
#include "gil.h"
#include "gristmill/conv.h"
#include "gristmill/linear.h"
#include "sparse_arguments.h"

namespace py = pybind11;

namespace gristmill {
namespace {

/// What a thread's calls leave behind for its next one, up to this many bytes.
constexpr std::size_t kKeptBytes = std::size_t{64} << 20;

Workspace& thread_workspace() {
  thread_local Workspace workspace;
  return workspace;
}

template <class Call>
void run_without_gil(const Call& call) {
  const GilReleased released;
  Workspace& workspace = thread_workspace();
  call(workspace);
  workspace.trim(kKeptBytes);
}

void require_level(Isa packed) {
  if (packed == active_isa()) return;
  throw Error(ErrorKind::isa, "weights",
              "packed for the level '" + std::string(isa_name(packed)) + "', but '" +
                  std::string(isa_name(active_isa())) + "' is active; pack them again");
}

ConvAttributes parse_attributes(py::handle stride, py::handle padding, py::handle dilation,
                                py::handle groups) {
  ConvAttributes a;
  std::tie(a.stride_h, a.stride_w) = parse_pair(stride, "stride");
  std::tie(a.dilation_h, a.dilation_w) = parse_pair(dilation, "dilation");
  const auto pads = parse_padding(padding);
  a.pad_top = pads[0];
  a.pad_left = pads[1];
  a.pad_bottom = pads[2];
  a.pad_right = pads[3];
  a.groups = parse_integer(groups, "groups");
  return a;
}

/// The shape of weights whose rows are given: columns are (in channels / groups, kernel rows, kernel
/// columns).
std::array<std::size_t, 4> shape_of_rows(const CsrStorage& matrix, py::handle kernel) {
  const auto [height, width] = parse_pair(kernel, "kernel");
  const std::size_t columns = matrix.columns();
  if (height < 1 || width < 1 ||
      columns / static_cast<std::size_t>(height) % static_cast<std::size_t>(width) ||
      columns % static_cast<std::size_t>(height))
    throw Error(ErrorKind::shape, "kernel",
                std::to_string(columns) + " columns are no whole number of kernels of " +
                    std::to_string(height) + " x " + std::to_string(width));
  const auto rows = static_cast<std::size_t>(height), taps = static_cast<std::size_t>(width);
  return {matrix.rows(), columns / rows / taps, rows, taps};
}

PackedConv pack_dense_conv(const py::array& array, const std::array<std::size_t, 4>& shape,
                           const ConvAttributes& attributes) {
  if (weight_type(array) == DType::f32)
    return {static_cast<const float*>(array.data()), shape, attributes, active_isa()};
  return {static_cast<const std::int8_t*>(array.data()), shape, attributes, active_isa()};
}

PackedConv pack_conv(py::handle weights, py::handle stride, py::handle padding, py::handle dilation,
                     py::handle groups, py::handle format, py::handle kernel) {
  const ConvAttributes attributes = parse_attributes(stride, padding, dilation, groups);
  const auto pack_sparse = [&](const CsrStorage& storage, SparseKind kind,
                               const std::array<std::size_t, 4>& shape) {
    return std::visit([&](const auto& csr) { return PackedConv(csr, kind, shape, attributes, active_isa()); },
                      storage.matrix);
  };
  if (const CsrStorage* matrix = sparse_matrix(weights)) {
    const auto shape = shape_of_rows(*matrix, kernel);
    const auto kind = parse_format(format, true, matrix->is_f32());
    return kind ? pack_sparse(*matrix, *kind, shape)
                : pack_dense_conv(dense_from_sparse(*matrix), shape, attributes);
  }
  const py::array array = contiguous(weights, "weights");
  require_rank(array, 4, "weights");
  std::array<std::size_t, 4> shape{};
  std::copy_n(array.shape(), 4, shape.begin());
  const auto kind = parse_format(format, false, weight_type(array) == DType::f32);
  return kind ? pack_sparse(sparse_from_dense(array, "weights"), *kind, shape)
              : pack_dense_conv(array, shape, attributes);
}

/// `channel_axis` is 0 for weights of a linear layer and 1 for the right operand of a product.
PackedLinear pack_dense_linear(py::handle weights, int channel_axis, std::size_t call_rows = 1) {
  const py::array array = contiguous(weights, "weights");
  require_rank(array, 2, "weights");
  const auto extent = [&](int axis) { return static_cast<std::size_t>(array.shape(axis)); };
  const std::size_t channels = extent(channel_axis), k = extent(1 - channel_axis), columns = extent(1);
  const std::size_t channel_step = channel_axis == 0 ? columns : 1, k_step = channel_axis == 0 ? 1 : columns;
  if (weight_type(array) == DType::f32)
    return {LinearWeights<float>{static_cast<const float*>(array.data()), channels, k, channel_step, k_step},
            active_isa()};
  return {LinearWeights<std::int8_t>{static_cast<const std::int8_t*>(array.data()), channels, k, channel_step,
                                     k_step},
          active_isa(), call_rows};
}

PackedLinear pack_linear(py::handle weights, py::handle format, py::handle rows) {
  const auto call_rows = static_cast<std::size_t>(parse_bounded(rows, 0, 0x7FFFFFFF, "rows"));
  const auto pack_sparse = [](const CsrStorage& storage, SparseKind kind) {
    return std::visit([&](const auto& csr) { return PackedLinear(csr, kind, active_isa()); }, storage.matrix);
  };
  if (const CsrStorage* matrix = sparse_matrix(weights)) {
    const auto kind = parse_format(format, true, matrix->is_f32());
    return kind ? pack_sparse(*matrix, *kind) : pack_dense_linear(dense_from_sparse(*matrix), 0, call_rows);
  }
  const py::array array = contiguous(weights, "weights");
  require_rank(array, 2, "weights");
  const auto kind = parse_format(format, false, weight_type(array) == DType::f32);
  return kind ? pack_sparse(sparse_from_dense(array, "weights"), *kind)
              : pack_dense_linear(array, 0, call_rows);
}

/// A linear layer under the names that its arguments have in a product.
template <class Call>
auto named_as_product(const Call& call) {
  try {
    return call();
  } catch (const Error& error) {
    constexpr std::array<std::pair<const char*, const char*>, 3> kNames{
        {{"x", "a"}, {"x_zero_point", "a_zero_point"}, {"weights", "b"}}};
    for (const auto& [layer, product] : kNames)
      if (error.where() == layer) throw Error(error.kind(), product, error.reason());
    throw;
  }
}

/// One class each, so that help() and errors tell a layer's weights from an operand.
struct PackedLayer : PackedLinear {
  PackedLayer(py::handle weights, py::handle format, py::handle rows)
      : PackedLinear(pack_linear(weights, format, rows)) {}
};
struct PackedOperand : PackedLinear {
  explicit PackedOperand(py::handle b)
      : PackedLinear(named_as_product([&] { return pack_dense_linear(b, 1); })) {}
};

py::array run_conv(py::handle x, const PackedConv& weights, py::handle zero_point, EpilogueSpec* epilogue,
                   py::handle residual, py::handle out, py::handle threads) {
  require_level(weights.isa());
  const py::array in = contiguous(x, "x");
  require_rank(in, 4, "x");
  const auto extent = [&](int axis) { return static_cast<std::size_t>(in.shape(axis)); };
  const ConvInput input{in.data(),
                        activation_type(in),
                        extent(0),
                        extent(1),
                        extent(2),
                        extent(3),
                        static_cast<std::int32_t>(parse_bounded(zero_point, -128, 255, "x_zero_point"))};
  const auto size = weights.output_size(input.height, input.width);
  const std::vector<std::size_t> shape{input.batch, weights.out_channels(), size[0], size[1]};
  const auto stage = stage_for(epilogue, weights.out_channels(), weights.is_f32());
  const std::optional<py::array> added = residual_for(residual, *stage, shape);
  const py::array result = output_for(out, shape, stage->output(), {&in, added ? &*added : nullptr});
  const int count = parse_threads(threads);
  run_without_gil([&, data = const_cast<void*>(result.data())](Workspace& workspace) {
    conv2d(weights, input, *stage, added ? added->data() : nullptr, data, count, workspace);
  });
  return result;
}

py::array run_linear(py::handle x, const PackedLinear& weights, py::handle zero_point, EpilogueSpec* epilogue,
                     py::handle residual, py::handle out, py::handle threads) {
  require_level(weights.isa());
  const py::array in = contiguous(x, "x");
  require_rank(in, 2, "x");
  const LinearInput input{in.data(), activation_type(in), static_cast<std::size_t>(in.shape(0)),
                          static_cast<std::size_t>(in.shape(1)),
                          static_cast<std::int32_t>(parse_bounded(zero_point, -128, 255, "x_zero_point"))};
  const std::vector<std::size_t> shape{input.rows, weights.out_channels()};
  const auto stage = stage_for(epilogue, weights.out_channels(), weights.is_f32());
  const std::optional<py::array> added = residual_for(residual, *stage, shape);
  const py::array result = output_for(out, shape, stage->output(), {&in, added ? &*added : nullptr});
  const int count = parse_threads(threads);
  run_without_gil([&, data = const_cast<void*>(result.data())](Workspace& workspace) {
    linear(weights, input, *stage, added ? added->data() : nullptr, data, count, workspace);
  });
  return result;
}

/// "<name what, variant, level, bytes>"
std::string repr_of(const char* name, const std::string& what, const char* variant, Isa isa,
                    std::size_t bytes) {
  std::ostringstream text;
  text << '<' << name << ' ' << what << ", " << variant << ", " << isa_name(isa) << ", " << bytes
       << " bytes>";
  return text.str();
}

std::string conv_repr(const PackedConv& w) {
  std::ostringstream what;
  for (std::size_t i = 0; i < 4; ++i) what << (i == 0 ? "" : "x") << w.shape()[i];
  what << ", groups=" << w.groups();
  return repr_of("PackedConv", what.str(), w.variant_name(), w.isa(), w.bytes());
}

std::string linear_repr(const PackedLinear& w, const char* name) {
  std::ostringstream what;
  what << w.in_channels() << " -> " << w.out_channels();
  return repr_of(name, what.str(), w.variant_name(), w.isa(), w.bytes());
}

/// What all packed classes have in common.
template <class Class>
void add_common(Class& cls, const char* name) {
  using Packed = typename Class::type;
  cls.attr("__module__") = "gristmill.kernels";
  cls.def_property_readonly(
      "isa", [](const Packed& w) { return std::string(isa_name(w.isa())); },
      "The level they are packed for.");
  cls.def_property_readonly(
      "nbytes", [](const Packed& w) { return w.bytes(); }, "Bytes of the packed weights.");
  cls.def_property_readonly(
      "executed_macs", [](const Packed& w) { return w.executed_macs(); },
      "Multiplications for each output position, or row of a batch: those of zeros included that are "
      "executed "
      "nevertheless.");
  cls.def("__reduce__", [name](const Packed&) -> py::object {
    throw py::type_error(
        std::string(name) +
        " cannot be pickled or copied: its layout belongs to this processor; keep the weights "
        "and pack them again");
  });
}

void bind_packed(py::module_& m) {
  py::class_<PackedConv, std::shared_ptr<PackedConv>> conv(
      m, "PackedConv", py::is_final(), plain_metaclass(),
      R"(Weights of a convolution, packed once for the active level.

Args:
    weights: int8 or float32 of shape (out channels, in channels / groups, rows, columns), or a CsrMatrix with a
        row for each output channel.
    stride: One whole number, or two for rows and columns.
    padding: One, two (rows, columns) or four (top, left, bottom, right) whole numbers.
    dilation: As stride.
    groups: Number of groups; with one input channel each, the convolution is depthwise.
    format: How weights are stored and multiplied: "dense", or only what is not zero, "quads" (int8, any pattern),
        "blocks" (int8, zeros come in aligned groups of four neighbours) or "singles" (float32). By default arrays
        are dense, and matrices quads or singles. Results do not depend on it.
    kernel: Rows and columns of the kernel, for a CsrMatrix.

The object is opaque, belongs to the level that was active when it was made, and cannot be pickled.)");
  conv.def(py::init(&pack_conv), py::arg("weights"), py::kw_only(), py::arg("stride") = 1,
           py::arg("padding") = 0, py::arg("dilation") = 1, py::arg("groups") = 1,
           py::arg("format") = py::none(), py::arg("kernel") = 1);
  conv.def_property_readonly(
      "format", [](const PackedConv& w) { return format_name(w.sparse_kind()); },
      "The format of the weights.");
  conv.def("__repr__", &conv_repr);
  conv.def(
      "output_size",
      [](const PackedConv& w, py::handle height, py::handle width) {
        const auto extent = [](py::handle value, const char* name) {
          return static_cast<std::size_t>(parse_bounded(value, 0, 0x7FFFFFFF, name));
        };
        const auto size = w.output_size(extent(height, "height"), extent(width, "width"));
        return std::make_pair(size[0], size[1]);
      },
      py::arg("height"), py::arg("width"), "Rows and columns of the output for an image of that size.");
  add_common(conv, "PackedConv");

  py::class_<PackedLayer, std::shared_ptr<PackedLayer>> layer(
      m, "PackedLinear", py::is_final(), plain_metaclass(),
      R"(Weights of a linear layer, packed once for the active level.

Args:
    weights: int8 or float32 of shape (out features, in features), or a CsrMatrix of that shape.
    format: As for PackedConv.
    rows: Rows of most calls. Some levels have a faster form of dense int8 weights for batches, which is slower
        for few rows; results are the same.

The object is opaque, belongs to the level that was active when it was made, and cannot be pickled.)");
  layer.def(py::init<py::handle, py::handle, py::handle>(), py::arg("weights"), py::kw_only(),
            py::arg("format") = py::none(), py::arg("rows") = 1);
  layer.def_property_readonly(
      "format", [](const PackedLayer& w) { return format_name(w.sparse_kind()); },
      "The format of the weights.");
  layer.def_property_readonly(
      "batched", [](const PackedLayer& w) { return w.batched(); }, "Whether they have the form for batches.");
  layer.def("__repr__", [](const PackedLayer& w) { return linear_repr(w, "PackedLinear"); });
  add_common(layer, "PackedLinear");

  py::class_<PackedOperand, std::shared_ptr<PackedOperand>> operand(
      m, "PackedGemm", py::is_final(), plain_metaclass(),
      R"(The right operand of matrix products, packed once for the active level.

Args:
    b: int8 or float32 of shape (K, N).

The object is opaque, belongs to the level that was active when it was made, and cannot be pickled.)");
  operand.def(py::init<py::handle>(), py::arg("b"));
  operand.def("__repr__", [](const PackedOperand& w) { return linear_repr(w, "PackedGemm"); });
  add_common(operand, "PackedGemm");
}

[[noreturn]] void refuse_weights(py::handle object, const char* expected) {
  throw Error(ErrorKind::dtype, "weights",
              std::string("expected ") + expected + ", got " +
                  py::str(py::type::handle_of(object).attr("__name__")).cast<std::string>());
}

}  // namespace

std::shared_ptr<const PackedConv> packed_conv(py::handle object) {
  if (py::isinstance<PackedConv>(object)) return object.cast<std::shared_ptr<PackedConv>>();
  refuse_weights(object, "a PackedConv");
}

std::shared_ptr<const PackedLinear> packed_linear(py::handle object) {
  if (py::isinstance<PackedLayer>(object)) return object.cast<std::shared_ptr<PackedLayer>>();
  if (py::isinstance<PackedOperand>(object)) return object.cast<std::shared_ptr<PackedOperand>>();
  refuse_weights(object, "a PackedLinear or PackedGemm");
}

void bind_dense(py::module_& m) {
  bind_epilogue(m);
  bind_packed(m);
  const auto none = py::none();
  m.def("conv2d", &run_conv, py::arg("x"), py::arg("weights"), py::arg("x_zero_point") = 0,
        py::arg("epilogue") = none, py::arg("residual") = none, py::arg("out") = none,
        py::arg("threads") = none, "See gristmill.kernels.conv2d.");
  m.def(
      "batch_pays", [](std::size_t rows, std::string_view isa) { return batch_pays(rows, parse_isa(isa)); },
      py::arg("rows"), py::arg("isa"),
      "Whether a level's form of dense int8 weights for batches is faster with so many rows.");
  m.def(
      "linear",
      [](py::handle x, const PackedLayer& w, py::handle zero_point, EpilogueSpec* epilogue,
         py::handle residual, py::handle out,
         py::handle threads) { return run_linear(x, w, zero_point, epilogue, residual, out, threads); },
      py::arg("x"), py::arg("weights"), py::arg("x_zero_point") = 0, py::arg("epilogue") = none,
      py::arg("residual") = none, py::arg("out") = none, py::arg("threads") = none,
      "See gristmill.kernels.linear.");
  m.def(
      "gemm",
      [](py::handle x, const PackedOperand& w, py::handle zero_point, EpilogueSpec* epilogue,
         py::handle residual, py::handle out, py::handle threads) {
        return named_as_product(
            [&] { return run_linear(x, w, zero_point, epilogue, residual, out, threads); });
      },
      py::arg("a"), py::arg("b"), py::arg("a_zero_point") = 0, py::arg("epilogue") = none,
      py::arg("residual") = none, py::arg("out") = none, py::arg("threads") = none,
      "See gristmill.kernels.gemm.");
}

}  // namespace gristmill
