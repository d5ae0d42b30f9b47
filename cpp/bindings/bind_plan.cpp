#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "array_views.h"
#include "bindings.h"
#include "dense_arguments.h"
#include "gil.h"
#include "plan_class.h"

namespace py = pybind11;

namespace gristmill {
namespace {

/// Ends a run when a signal handler raises: only the main thread runs handlers.
class SignalWatch final : public RunWatch {
 public:
  explicit SignalWatch(GilReleased& released) : released_(released) {}

  bool wants_stop() override {
    if (handles_ == false) return false;
    return released_.with_lock([this] {
      if (!handles_) handles_ = on_main_thread();
      return *handles_ && PyErr_CheckSignals() != 0;
    });
  }

 private:
  static bool on_main_thread() {
    try {
      const py::module_ threading = py::module_::import("threading");
      return threading.attr("current_thread")().is(threading.attr("main_thread")());
    } catch (const py::error_already_set&) {
      return false;
    }
  }

  GilReleased& released_;
  std::optional<bool> handles_;
};

/// Arrays of one run, checked; `held` keeps those that are new.
struct RunArrays {
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  std::vector<py::array> held;
  py::list results;
};

std::vector<std::size_t> shape_of(const py::array& array) {
  return {array.shape(), array.shape() + array.ndim()};
}

void require_type(const py::array& array, const TensorType& type, const std::string& name) {
  require_dtype(array, element_type(type.dtype), name.c_str());
  const auto rank = static_cast<std::size_t>(array.ndim());
  if (rank != type.shape.size() || !std::equal(type.shape.begin(), type.shape.end(), array.shape()))
    throw Error(ErrorKind::shape, name,
                "expected shape " + shape_text(type.shape) + ", got " + shape_text(shape_of(array)));
}

bool matches(const py::array& array, const TensorType& type) {
  const auto rank = static_cast<std::size_t>(array.ndim());
  return has_dtype(array, element_type(type.dtype)) && rank == type.shape.size() &&
         std::equal(type.shape.begin(), type.shape.end(), array.shape());
}

constexpr int kReady = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;

py::sequence sequence_of(py::handle object, std::size_t count, const char* name) {
  if (!PyList_Check(object.ptr()) && !PyTuple_Check(object.ptr()))
    throw Error(ErrorKind::dtype, name, "expected a list or tuple of arrays");
  const auto sequence = py::reinterpret_borrow<py::sequence>(object);
  if (sequence.size() != count)
    throw Error(ErrorKind::argument, name,
                "expected " + std::to_string(count) + " arrays, got " + std::to_string(sequence.size()));
  return sequence;
}

void add_input(RunArrays& run, const py::object& object, const TensorType& type, std::size_t index) {
  if (!py::isinstance<py::array>(object) || !matches(py::reinterpret_borrow<py::array>(object), type)) {
    const std::string name = "input " + std::to_string(index);
    require_type(require_array(object, name.c_str()), type, name);
  }
  py::array array = py::reinterpret_borrow<py::array>(object);
  if ((array.flags() & kReady) != kReady) {
    array = py::module_::import("numpy").attr("require")(array, py::none(),
                                                         py::make_tuple("C_CONTIGUOUS", "ALIGNED"));
  }
  run.inputs.push_back(array.data());
  run.held.push_back(std::move(array));
}

void add_output(RunArrays& run, const py::object& object, const TensorType& type, const py::dtype& dtype,
                std::size_t index) {
  py::array array;
  if (object.is_none()) {
    array = py::array(dtype, type.shape);
  } else {
    const std::string name = "output " + std::to_string(index);
    array = require_array(object, name.c_str());
    require_type(array, type, name);
    if (!array.writeable()) throw Error(ErrorKind::argument, name, "is read-only");
    if ((array.flags() & kReady) != kReady)
      throw Error(ErrorKind::argument, name, "is not contiguous in C order");
    for (const py::array& other : run.held) {
      const auto* low = static_cast<const std::byte*>(array.data());
      const auto* other_low = static_cast<const std::byte*>(other.data());
      if (low < other_low + other.nbytes() && other_low < low + array.nbytes())
        throw Error(ErrorKind::argument, name, "shares memory with another array of the run");
    }
  }
  run.outputs.push_back(const_cast<void*>(array.data()));
  run.results.append(array);
  run.held.push_back(std::move(array));
}

RunArrays arrays_for(const PlanObject& object, py::handle inputs, py::handle outputs) {
  const Plan& plan = object.plan;
  const std::size_t in_count = plan.inputs().size(), out_count = plan.outputs().size();
  RunArrays run;
  run.inputs.reserve(in_count);
  run.outputs.reserve(out_count);
  run.held.reserve(in_count + out_count);
  const py::sequence given = sequence_of(inputs, in_count, "inputs");
  for (std::size_t i = 0; i < in_count; ++i) add_input(run, given[i], plan.inputs()[i], i);
  std::optional<py::sequence> wanted;
  if (!outputs.is_none()) wanted = sequence_of(outputs, out_count, "outputs");
  for (std::size_t i = 0; i < out_count; ++i)
    add_output(run, wanted ? py::object((*wanted)[i]) : py::none(), plan.outputs()[i],
               object.output_dtypes[i], i);
  return run;
}

void run_arrays(PlanObject& object, const RunArrays& run, int threads, std::span<double> seconds) {
  object.plan.freeze();
  bool complete;
  {
    GilReleased released;
    SignalWatch watch(released);
    complete = object.plan.run(run.inputs, run.outputs, threads, &watch, seconds);
  }
  if (!complete) throw py::error_already_set();
}

py::list run_plan(PlanObject& object, py::handle inputs, py::handle outputs, py::handle threads) {
  const int count = parse_threads(threads);
  RunArrays run = arrays_for(object, inputs, outputs);
  run_arrays(object, run, count, {});
  return std::move(run.results);
}

/// Memory between the steps of a plan and of its parts.
std::size_t scratch_bytes(const Plan& plan) {
  std::size_t bytes = plan.arena_bytes();
  for (std::size_t i = 0; i < plan.steps(); ++i)
    if (const Plan* part = plan.step(i).part()) bytes += scratch_bytes(*part);
  return bytes;
}

/// Calls visit(name, kernel) for each of a plan's measured steps; kernels tell how often a part runs them.
template <class Visit>
void for_each_measured(const Plan& plan, std::size_t times, const Visit& visit) {
  for (std::size_t i = 0; i < plan.steps(); ++i) {
    const Step& step = plan.step(i);
    if (const Plan* part = step.part()) {
      for_each_measured(*part, times * step.repeats(), visit);
    } else {
      visit(plan.step_name(i), step.kernel() + (times == 1 ? "" : ", " + std::to_string(times) + " slices"));
    }
  }
}

py::list profile_plan(PlanObject& object, py::handle inputs, py::handle threads) {
  const int count = parse_threads(threads);
  const RunArrays run = arrays_for(object, inputs, py::none());
  std::vector<double> seconds(object.plan.measured_steps());
  run_arrays(object, run, count, seconds);
  py::list rows;
  for_each_measured(object.plan, 1, [&](const std::string& name, const std::string& kernel) {
    rows.append(py::make_tuple(name, kernel, seconds[rows.size()] * 1000));
  });
  return rows;
}

py::list steps_of(const PlanObject& object) {
  py::list rows;
  for_each_measured(object.plan, 1, [&](const std::string& name, const std::string& kernel) {
    rows.append(py::make_tuple(name, kernel));
  });
  return rows;
}

/// (dtype, shape) of each input or output.
std::vector<TensorType> parse_types(py::handle object, const char* name) {
  std::vector<TensorType> types;
  for (py::handle item : py::reinterpret_borrow<py::iterable>(object)) {
    const auto pair = py::reinterpret_borrow<py::sequence>(item);
    types.push_back({parse_dtype_name(py::str(pair[0]), name), parse_shape(pair[1], name)});
  }
  return types;
}

py::tuple as_tuple(const std::vector<std::size_t>& shape) {
  py::tuple tuple(shape.size());
  for (std::size_t i = 0; i < shape.size(); ++i) tuple[i] = shape[i];
  return tuple;
}

Tensor make_tensor(Place place, std::size_t index, std::size_t offset, const std::string& dtype,
                   py::handle shape) {
  return {{parse_dtype_name(dtype, "dtype"), parse_shape(shape, "shape")}, place, index, offset, nullptr};
}

/// Keeps a reference that may be dropped by any thread at any time.
std::shared_ptr<const void> keep_alive(const py::array& array) {
  PyObject* object = array.inc_ref().ptr();
  return {array.data(), [object](const void*) {
            if (Py_IsInitialized() == 0) return;
            const py::gil_scoped_acquire acquired;
            Py_DECREF(object);
          }};
}

Tensor constant_tensor(py::handle object) {
  py::array array = require_array(object, "array");
  if ((array.flags() & kReady) != kReady || array.writeable())
    array = py::array(array.attr("copy")(py::arg("order") = "C"));
  for (std::size_t i = 0; i < kDTypeNames.size(); ++i) {
    const auto type = static_cast<DType>(i);
    if (has_dtype(array, element_type(type)))
      return {{type, shape_of(array)}, Place::constant, 0, 0, keep_alive(array)};
  }
  throw Error(ErrorKind::dtype, "array",
              "expected uint8, int8, int32, float32, int64 or bool, got " +
                  py::str(array.dtype()).cast<std::string>());
}

std::string tensor_repr(const Tensor& tensor) {
  constexpr std::array<const char*, 4> kPlaces{"arena", "input", "output", "constant"};
  std::string place = kPlaces[static_cast<std::size_t>(tensor.place)];
  if (tensor.place == Place::input || tensor.place == Place::output)
    place += " " + std::to_string(tensor.index);
  return "<Tensor " + type_text(tensor.type) + ", " + place + " + " + std::to_string(tensor.offset) + ">";
}

void bind_tensor(py::module_& m) {
  py::class_<TensorView>(m, "TensorView", py::is_final(), plain_metaclass(),
                         "Any elements of a Tensor; made by Tensor.view().");
  py::class_<Tensor> cls(m, "Tensor", py::is_final(), plain_metaclass(), R"(A part of a plan's memory.

Elements are contiguous in C order, of uint8, int8, int32, float32, int64 or bool.)");
  cls.def_static(
      "arena",
      [](std::size_t offset, const std::string& dtype, py::handle shape) {
        return make_tensor(Place::arena, 0, offset, dtype, shape);
      },
      py::arg("offset"), py::arg("dtype"), py::arg("shape"), "Scratch memory of a run, from that byte on.");
  cls.def_static(
      "input",
      [](std::size_t index, const std::string& dtype, py::handle shape, std::size_t offset) {
        return make_tensor(Place::input, index, offset, dtype, shape);
      },
      py::arg("index"), py::arg("dtype"), py::arg("shape"), py::arg("offset") = 0,
      "An input of the plan, or the part of it from that byte on.");
  cls.def_static(
      "output",
      [](std::size_t index, const std::string& dtype, py::handle shape, std::size_t offset) {
        return make_tensor(Place::output, index, offset, dtype, shape);
      },
      py::arg("index"), py::arg("dtype"), py::arg("shape"), py::arg("offset") = 0,
      "An output of the plan, or the part of it from that byte on.");
  cls.def_static("constant", &constant_tensor, py::arg("array"),
                 "An array that never changes; copied unless it is contiguous and read-only.");
  cls.def(
      "view",
      [](const Tensor& tensor, py::handle shape, const std::vector<std::ptrdiff_t>& strides,
         std::size_t offset) {
        return TensorView{tensor, parse_shape(shape, "shape"), strides, offset};
      },
      py::arg("shape"), py::arg("strides"), py::arg("offset") = 0,
      "Elements of the tensor; strides and offset count elements, strides may be 0 or negative.");
  cls.def_property_readonly("dtype", [](const Tensor& t) { return dtype_name(t.dtype()); });
  cls.def_property_readonly("shape", [](const Tensor& t) { return as_tuple(t.shape()); });
  cls.def_property_readonly("nbytes", [](const Tensor& t) { return byte_count(t.type, "tensor"); });
  cls.def("__repr__", &tensor_repr);
}

}  // namespace

PlanObject::PlanObject(std::size_t arena_bytes, std::vector<TensorType> inputs,
                       std::vector<TensorType> outputs)
    : plan(arena_bytes, std::move(inputs), std::move(outputs)) {
  for (const TensorType& type : plan.outputs()) output_dtypes.emplace_back(element_type(type.dtype).name);
}

DType parse_dtype_name(const std::string& name, const char* argument) {
  if (const auto type = parse_dtype(name)) return *type;
  throw Error(ErrorKind::dtype, argument,
              "expected uint8, int8, int32, float32, int64 or bool, got '" + name + "'");
}

std::vector<std::size_t> parse_shape(py::handle object, const char* name) {
  std::vector<std::size_t> shape;
  for (py::handle item : py::reinterpret_borrow<py::iterable>(object)) {
    const long extent = parse_integer(item, name);
    if (extent < 0) throw Error(ErrorKind::shape, name, "has the negative extent " + std::to_string(extent));
    shape.push_back(static_cast<std::size_t>(extent));
  }
  return shape;
}

TensorView parse_view(py::handle object, const char* name) {
  if (py::isinstance<TensorView>(object)) return object.cast<const TensorView&>();
  if (py::isinstance<Tensor>(object)) return TensorView::whole(object.cast<const Tensor&>());
  throw Error(ErrorKind::dtype, name, "expected a Tensor or a TensorView");
}

void bind_plan(py::module_& m) {
  bind_tensor(m);
  PlanClass cls(m, "Plan", py::is_final(), plain_metaclass(), R"(A network made ready to run.

Steps are added in order, each checked as it is added; the first run ends that. Runs may overlap on any threads.

Args:
    arena_bytes: Scratch memory of a run, shared by all tensors of the arena.
    inputs: (dtype name, shape) of each input.
    outputs: (dtype name, shape) of each output.)");
  cls.def(py::init([](std::size_t arena_bytes, py::handle inputs, py::handle outputs) {
            return std::make_shared<PlanObject>(arena_bytes, parse_types(inputs, "inputs"),
                                                parse_types(outputs, "outputs"));
          }),
          py::arg("arena_bytes"), py::arg("inputs"), py::arg("outputs"));
  cls.def("run", &run_plan, py::arg("inputs"), py::arg("outputs") = py::none(),
          py::arg("threads") = py::none(),
          "Run all steps; returns the outputs, new arrays where `outputs` is or holds None.");
  cls.def("profile", &profile_plan, py::arg("inputs"), py::arg("threads") = py::none(),
          "Run once; returns (name, kernel, milliseconds) of each of `steps`.");
  cls.def_property_readonly("steps", &steps_of,
                            "(name, kernel) of each step, those of parts in place of what runs them.");
  cls.def_property_readonly(
      "arena_bytes", [](const PlanObject& p) { return scratch_bytes(p.plan); },
      "Scratch memory of a run, that of parts once.");
  bind_layer_steps(cls);
  bind_copy_steps(cls);
  bind_elementwise_steps(cls);
  bind_reduce_steps(cls);
  bind_quantized_steps(cls);
  bind_resize_steps(cls);
  bind_slices_step(cls);
}

}  // namespace gristmill
