#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

/// Sparse matrices in compressed sparse row form.
///
///     row r holds the entries  indptr[r] .. indptr[r + 1] - 1
///     entry e is the element   (r, indices[e]) = data[e]
///
/// A CsrMatrix is valid by construction: every lower layer may use its indices without looking at them again.
/// Valid means
///
///     indptr    rows + 1 numbers, the first 0, none below its predecessor, the last the number of entries
///     indices   in [0, columns), strictly rising within a row: sorted, no duplicates
///     data      as many as indices; explicit zeros are allowed
///
/// This is the form of exchange and storage. Kernels run packed forms made from it (see packed_sparse.h).
namespace gristmill {

/// How many weights are not zero.
std::size_t count_nonzero(std::span<const std::int8_t> weights);

/// T is std::int8_t or float.
template <class T>
class CsrMatrix {
 public:
  /// Takes the three arrays as they are; throws Error(argument), Error(shape) or Error(limit) unless they are
  /// valid.
  CsrMatrix(std::size_t rows, std::size_t columns, std::vector<std::int64_t> indptr,
            std::vector<std::int32_t> indices, std::vector<T> data);

  /// The nonzero elements of a row-major matrix. NaN counts as nonzero.
  static CsrMatrix from_dense(std::span<const T> dense, std::size_t rows, std::size_t columns);

  /// Writes all rows * columns elements.
  void to_dense(std::span<T> dense) const;

  /// A matrix of rows [first, last) alone.
  CsrMatrix rows_between(std::size_t first, std::size_t last) const;

  std::size_t rows() const noexcept { return rows_; }
  std::size_t columns() const noexcept { return columns_; }
  std::size_t entry_count() const noexcept { return data_.size(); }
  std::span<const std::int64_t> indptr() const noexcept { return indptr_; }
  std::span<const std::int32_t> indices() const noexcept { return indices_; }
  std::span<const T> data() const noexcept { return data_; }

  /// The entries of one row.
  std::span<const std::int32_t> row_indices(std::size_t row) const noexcept;
  std::span<const T> row_data(std::size_t row) const noexcept;

 private:
  CsrMatrix() = default;
  void validate() const;

  std::size_t rows_ = 0, columns_ = 0;
  std::vector<std::int64_t> indptr_;
  std::vector<std::int32_t> indices_;
  std::vector<T> data_;
};

extern template class CsrMatrix<std::int8_t>;
extern template class CsrMatrix<float>;

}  // namespace gristmill
