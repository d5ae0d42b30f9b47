#include <pybind11/stl.h>

#include <array>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "dense_arguments.h"
#include "sparse_arguments.h"

namespace py = pybind11;

namespace gristmill {
namespace {

constexpr std::array<const char*, 3> kFormatNames{"quads", "blocks",
                                                  "singles"};  // in the order of SparseKind

template <class From, class To>
std::vector<To> converted(const py::array& array, const char* name) {
  const From* data = static_cast<const From*>(array.data());
  std::vector<To> values(static_cast<std::size_t>(array.size()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::in_range<To>(data[i]))
      throw Error(ErrorKind::argument, name,
                  std::to_string(data[i]) + " is beyond " + std::to_string(std::numeric_limits<To>::max()));
    values[i] = static_cast<To>(data[i]);
  }
  return values;
}

/// A vector of int32 or int64.
template <class T>
std::vector<T> parse_indices(py::handle object, const char* name) {
  const py::array array = contiguous(object, name);
  require_rank(array, 1, name);
  if (has_dtype(array, kInt32)) return converted<std::int32_t, T>(array, name);
  if (has_dtype(array, kInt64)) return converted<std::int64_t, T>(array, name);
  throw Error(ErrorKind::dtype, name,
              "expected int32 or int64, got " + py::str(array.dtype()).cast<std::string>());
}

template <class T>
CsrMatrix<T> make_matrix(const std::pair<long, long>& shape, py::handle indptr, py::handle indices,
                         const py::array& data) {
  for (const long extent : {shape.first, shape.second})
    if (extent < 0)
      throw Error(ErrorKind::argument, "shape", "expected 0 or more, got " + std::to_string(extent));
  const T* values = static_cast<const T*>(data.data());
  return CsrMatrix<T>(static_cast<std::size_t>(shape.first), static_cast<std::size_t>(shape.second),
                      parse_indices<std::int64_t>(indptr, "indptr"),
                      parse_indices<std::int32_t>(indices, "indices"),
                      std::vector<T>(values, values + data.size()));
}

CsrStorage make_storage(py::handle indptr, py::handle indices, py::handle data, py::handle shape) {
  if (!py::isinstance<py::sequence>(shape) || py::len(shape) != 2)
    throw Error(ErrorKind::argument, "shape", "expected (rows, columns)");
  const auto extents = parse_pair(shape, "shape");
  const py::array values = contiguous(data, "data");
  require_rank(values, 1, "data");
  if (has_dtype(values, kInt8)) return {make_matrix<std::int8_t>(extents, indptr, indices, values)};
  require_dtype(values, kFloat32, "data");
  return {make_matrix<float>(extents, indptr, indices, values)};
}

template <class T>
py::array copied(std::span<const T> values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

}  // namespace

const CsrStorage* sparse_matrix(py::handle object) {
  const py::object core = py::getattr(object, "_core", py::none());
  return py::isinstance<CsrStorage>(core) ? core.cast<const CsrStorage*>() : nullptr;
}

CsrStorage sparse_from_dense(py::handle object, const char* name) {
  const py::array array = contiguous(object, name);
  if (array.ndim() < 2) require_rank(array, 2, name);
  const auto rows = static_cast<std::size_t>(array.shape(0));
  std::size_t columns = 1;
  for (py::ssize_t d = 1; d < array.ndim(); ++d) columns *= static_cast<std::size_t>(array.shape(d));
  const auto from = [&]<class T>(const T* data) -> CsrStorage {
    return {CsrMatrix<T>::from_dense({data, rows * columns}, rows, columns)};
  };
  if (has_dtype(array, kInt8)) return from(static_cast<const std::int8_t*>(array.data()));
  require_dtype(array, kFloat32, name);
  return from(static_cast<const float*>(array.data()));
}

py::array dense_from_sparse(const CsrStorage& storage) {
  return std::visit(
      []<class T>(const CsrMatrix<T>& csr) -> py::array {
        py::array_t<T> dense({csr.rows(), csr.columns()});
        csr.to_dense({dense.mutable_data(), csr.rows() * csr.columns()});
        return dense;
      },
      storage.matrix);
}

std::optional<SparseKind> parse_format(py::handle format, bool sparse, bool f32) {
  if (format.is_none()) {
    if (!sparse) return std::nullopt;
    return f32 ? SparseKind::singles : SparseKind::quads;
  }
  if (py::isinstance<py::str>(format)) {
    const auto name = format.cast<std::string>();
    if (name == "dense") return std::nullopt;
    for (std::size_t i = 0; i < kFormatNames.size(); ++i)
      if (name == kFormatNames[i]) return static_cast<SparseKind>(i);
  }
  throw Error(ErrorKind::argument, "format",
              "expected dense, quads, blocks or singles, got " + py::repr(format).cast<std::string>());
}

const char* format_name(const std::optional<SparseKind>& kind) {
  return kind ? kFormatNames[static_cast<std::size_t>(*kind)] : "dense";
}

void bind_sparse(py::module_& m) {
  m.def(
      "count_nonzero",
      [](py::handle weights) {
        const py::array array = contiguous(weights, "weights");
        require_dtype(array, kInt8, "weights");
        return count_nonzero(
            {static_cast<const std::int8_t*>(array.data()), static_cast<std::size_t>(array.size())});
      },
      py::arg("weights"));
  py::class_<CsrStorage> cls(m, "CsrMatrix", py::is_final(), plain_metaclass(),
                             "See gristmill.kernels.CsrMatrix.");
  cls.def(py::init(&make_storage), py::arg("indptr"), py::arg("indices"), py::arg("data"), py::arg("shape"));
  cls.def_static(
      "from_dense", [](py::handle array) { return sparse_from_dense(array, "array"); }, py::arg("array"));
  cls.def("to_dense", &dense_from_sparse);
  cls.def("arrays", [](const CsrStorage& storage) {
    return std::visit(
        [](const auto& csr) {
          return py::make_tuple(copied(csr.indptr()), copied(csr.indices()), copied(csr.data()));
        },
        storage.matrix);
  });
  cls.def_property_readonly(
      "shape", [](const CsrStorage& storage) { return std::make_pair(storage.rows(), storage.columns()); });
  cls.def_property_readonly("nnz", [](const CsrStorage& storage) {
    return std::visit([](const auto& csr) { return csr.entry_count(); }, storage.matrix);
  });
  cls.def_property_readonly("dtype",
                            [](const CsrStorage& storage) { return storage.is_f32() ? "float32" : "int8"; });
}

}  // namespace gristmill
