#include "array_views.h"

#include <algorithm>
#include <array>
#include <bit>

#include "gristmill/parallel.h"

namespace py = pybind11;

namespace gristmill {
namespace {

std::string text_of(py::handle object) { return py::str(object).cast<std::string>(); }

std::string shape_text(const py::array& array) { return text_of(py::object(array.attr("shape"))); }

/// True if two index tuples may name one byte: sorted by stride, each dimension must step over all that the
/// smaller ones span.
bool repeats_elements(const py::array& array) {
  std::vector<std::pair<std::size_t, std::size_t>> dims;  // stride, extent
  for (py::ssize_t d = 0; d < array.ndim(); ++d) {
    if (array.shape(d) == 0) return false;
    if (array.shape(d) > 1)
      dims.emplace_back(static_cast<std::size_t>(std::abs(array.strides(d))),
                        static_cast<std::size_t>(array.shape(d)));
  }
  std::ranges::sort(dims);
  std::size_t span = static_cast<std::size_t>(array.itemsize());
  for (const auto& [stride, extent] : dims) {
    if (stride < span) return true;
    span += stride * (extent - 1);
  }
  return false;
}

/// The addresses [first, second) that an array's elements lie in.
std::pair<std::uintptr_t, std::uintptr_t> extent_of(const py::array& array) {
  std::uintptr_t low = reinterpret_cast<std::uintptr_t>(array.data()), high = low;
  for (py::ssize_t d = 0; d < array.ndim(); ++d) {
    if (array.shape(d) == 0) return {low, low};
    const auto span = static_cast<std::uintptr_t>((array.shape(d) - 1) * array.strides(d));
    (array.strides(d) < 0 ? low : high) += span;
  }
  return {low, high + static_cast<std::uintptr_t>(array.itemsize())};
}

/// Where address ranges overlap numpy decides exactly within bounded work; beyond that, they count as
/// sharing.
bool shares_memory(const py::array& a, const py::array& b) {
  const auto [a_low, a_high] = extent_of(a);
  const auto [b_low, b_high] = extent_of(b);
  if (a_high <= b_low || b_high <= a_low) return false;
  try {
    const py::object decide = py::module_::import("numpy").attr("shares_memory");
    return decide(a, b, py::arg("max_work") = 100000).cast<bool>();
  } catch (const py::error_already_set&) {
    return true;
  }
}

}  // namespace

const ElementType& element_type(DType type) {
  static constexpr std::array<const ElementType*, 6> kTypes{&kUInt8,   &kInt8,  &kInt32,
                                                            &kFloat32, &kInt64, &kBool};
  return *kTypes[static_cast<std::size_t>(type)];
}

long parse_integer(py::handle object, const char* name) {
  const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
  if (!index) {
    PyErr_Clear();
    throw Error(ErrorKind::dtype, name,
                "expected a whole number, got " + text_of(py::type::handle_of(object)));
  }
  int overflow = 0;
  const long value = PyLong_AsLongAndOverflow(index.ptr(), &overflow);
  if (overflow != 0) throw Error(ErrorKind::argument, name, "is out of range: " + text_of(index));
  return value;
}

py::array require_array(py::handle object, const char* name) {
  if (py::isinstance<py::array>(object)) return py::reinterpret_borrow<py::array>(object);
  throw Error(ErrorKind::dtype, name,
              "expected a numpy array, got " + text_of(py::type::handle_of(object).attr("__name__")) +
                  "; wrap it in numpy.asarray");
}

bool is_element_type(const py::dtype& dtype, const ElementType& type) {
  constexpr char kNative = std::endian::native == std::endian::little ? '<' : '>';
  const char order = dtype.byteorder();
  return dtype.kind() == type.kind && dtype.itemsize() == type.bytes &&
         (order == '=' || order == '|' || order == kNative);
}

bool has_dtype(const py::array& array, const ElementType& type) {
  return is_element_type(array.dtype(), type);
}

void require_dtype(const py::array& array, const ElementType& type, const char* name) {
  if (has_dtype(array, type)) return;
  const py::dtype actual = array.dtype();
  if (actual.kind() == type.kind && actual.itemsize() == type.bytes)
    throw Error(ErrorKind::dtype, name,
                "is byte-swapped; convert it with x.astype(x.dtype.newbyteorder('='))");
  throw Error(
      ErrorKind::dtype, name,
      std::string("expected ") + type.name + ", got " + text_of(actual) + "; convert it with x.astype");
}

void require_rank(const py::array& array, py::ssize_t rank, const char* name) {
  if (array.ndim() == rank) return;
  throw Error(ErrorKind::shape, name,
              "expected rank " + std::to_string(rank) + ", got shape " + shape_text(array));
}

py::array require_output(py::handle out, const py::array& like, const ElementType& type) {
  if (out.is_none() && (like.flags() & py::array::c_style) != 0)
    return py::array(type.make(), {like.shape(), like.shape() + like.ndim()});
  if (out.is_none())
    return py::module_::import("numpy").attr("empty_like")(like, py::arg("dtype") = type.name,
                                                           py::arg("subok") = false);
  const py::array array = require_array(out, "out");
  require_dtype(array, type, "out");
  if (array.ndim() != like.ndim() || !std::equal(array.shape(), array.shape() + array.ndim(), like.shape()))
    throw Error(ErrorKind::shape, "out", "expected shape " + shape_text(like) + ", got " + shape_text(array));
  if (!array.writeable()) throw Error(ErrorKind::argument, "out", "is read-only");
  if (repeats_elements(array))
    throw Error(ErrorKind::argument, "out", "has several elements in one place (is it a broadcast view?)");
  if (shares_memory(array, like))
    throw Error(ErrorKind::argument, "out",
                "shares memory with the input; results would overwrite it while it is read");
  return array;
}

std::optional<std::size_t> parse_axis(py::handle axis, const py::array& array) {
  if (axis.is_none()) return std::nullopt;
  const long value = parse_integer(axis, "axis"), rank = static_cast<long>(array.ndim());
  if (value < -rank || value >= rank)
    throw Error(
        ErrorKind::shape, "axis",
        "is " + std::to_string(value) + ", out of range for an array of rank " + std::to_string(rank));
  return static_cast<std::size_t>(value < 0 ? value + rank : value);
}

int parse_threads(py::handle threads) {
  if (threads.is_none()) return 0;
  const long value = parse_integer(threads, "threads");
  if (value >= 1 && value <= kMaxThreads) return static_cast<int>(value);
  throw Error(ErrorKind::argument, "threads",
              "must be in 1.." + std::to_string(kMaxThreads) + ", got " + std::to_string(value));
}

}  // namespace gristmill
