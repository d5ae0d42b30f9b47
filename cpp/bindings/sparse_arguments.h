#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <variant>

#include "gristmill/error.h"
#include "gristmill/packed_sparse.h"
#include "gristmill/sparse.h"

namespace gristmill {

/// A sparse matrix as Python holds it.
struct CsrStorage {
  std::variant<CsrMatrix<std::int8_t>, CsrMatrix<float>> matrix;

  std::size_t rows() const {
    return std::visit([](const auto& csr) { return csr.rows(); }, matrix);
  }
  std::size_t columns() const {
    return std::visit([](const auto& csr) { return csr.columns(); }, matrix);
  }
  bool is_f32() const { return matrix.index() == 1; }
};

/// The matrix behind a gristmill.kernels.CsrMatrix, null for anything else.
const CsrStorage* sparse_matrix(pybind11::handle object);

/// The nonzero elements of an array of rank 2 or more, its first axis being the rows.
CsrStorage sparse_from_dense(pybind11::handle array, const char* name);

/// All elements, of shape (rows, columns).
pybind11::array dense_from_sparse(const CsrStorage& storage);

/// "dense" is no SparseKind and becomes none; so does None where `sparse` is false. Else None is the format
/// that suits any pattern of zeros. Error(argument) for other names.
std::optional<SparseKind> parse_format(pybind11::handle format, bool sparse, bool f32);

/// The name that parse_format takes.
const char* format_name(const std::optional<SparseKind>& kind);

}  // namespace gristmill
