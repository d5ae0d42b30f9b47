#include "gristmill/sparse.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string>

#include "gristmill/error.h"
#include "gristmill/isa.h"
#include "kernel_table.h"

namespace gristmill {
namespace {

std::string number(std::int64_t value) { return std::to_string(value); }

void validate_indptr(std::span<const std::int64_t> indptr, std::size_t rows, std::size_t entries) {
  if (indptr.empty() || indptr.size() - 1 != rows) {
    throw Error(ErrorKind::shape, "indptr",
                "expected " + number(static_cast<std::int64_t>(rows)) +
                    " + 1 entries for as many rows, got " + number(static_cast<std::int64_t>(indptr.size())));
  }
  if (indptr.front() != 0)
    throw Error(ErrorKind::argument, "indptr", "must begin with 0, got " + number(indptr.front()));
  for (std::size_t r = 0; r < rows; ++r) {
    if (indptr[r + 1] >= indptr[r]) continue;
    throw Error(ErrorKind::argument, "indptr",
                "falls from " + number(indptr[r]) + " to " + number(indptr[r + 1]) + " at row " +
                    number(static_cast<std::int64_t>(r)));
  }
  if (indptr.back() != static_cast<std::int64_t>(entries)) {
    throw Error(ErrorKind::argument, "indptr",
                "ends with " + number(indptr.back()) + ", but there are " +
                    number(static_cast<std::int64_t>(entries)) + " entries");
  }
}

void validate_row(std::span<const std::int32_t> indices, std::size_t columns, std::size_t row) {
  std::int64_t previous = -1;
  for (const std::int32_t index : indices) {
    if (index < 0 || static_cast<std::size_t>(index) >= columns) {
      throw Error(ErrorKind::argument, "indices",
                  "column " + number(index) + " in row " + number(static_cast<std::int64_t>(row)) +
                      " is outside 0.." + number(static_cast<std::int64_t>(columns) - 1));
    }
    if (index <= previous) {
      throw Error(ErrorKind::argument, "indices",
                  "row " + number(static_cast<std::int64_t>(row)) + " names column " + number(index) +
                      " after column " + number(previous) +
                      "; columns must rise, each at most once (sort them and sum duplicates)");
    }
    previous = index;
  }
}

/// The top bit of each byte that is not 0.
std::uint64_t nonzero_bytes(const std::int8_t* eight) {
  constexpr std::uint64_t kLow =
      0x7F7F7F7F7F7F7F7F;  // + 0x7F carries into the top bit unless all below are 0
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, eight, 8);
  return (((bytes & kLow) + kLow) | bytes) & ~kLow;
}

template <class T>
std::size_t count_nonzeros(std::span<const T> elements) {
  std::size_t at = 0, count = 0;
  if constexpr (sizeof(T) == 1) {
    constexpr std::uint64_t kOnes = 0x0101010101010101;  // times which the top byte is the sum of all
    for (; at + 8 <= elements.size(); at += 8)
      count += (nonzero_bytes(elements.data() + at) >> 7) * kOnes >> 56;
  }
  const auto rest = elements.subspan(at);
  return count + rest.size() - static_cast<std::size_t>(std::ranges::count(rest, T{0}));
}

/// Calls `found(column)` for the nonzero elements of a row, in order.
template <class T, class Found>
void visit_nonzeros(const T* row, std::size_t columns, const Found& found) {
  std::size_t column = 0;
  if constexpr (sizeof(T) == 1) {
    for (; column + 8 <= columns; column += 8)
      for (std::uint64_t left = nonzero_bytes(row + column); left != 0; left &= left - 1)
        found(column + static_cast<std::size_t>(std::countr_zero(left)) / 8);
  }
  for (; column < columns; ++column)
    if (row[column] != T{0}) found(column);
}

}  // namespace

std::size_t count_nonzero(std::span<const std::int8_t> weights) {
  return active_kernels().weight.count_nonzero(weights.data(), weights.size());
}

template <class T>
CsrMatrix<T>::CsrMatrix(std::size_t rows, std::size_t columns, std::vector<std::int64_t> indptr,
                        std::vector<std::int32_t> indices, std::vector<T> data)
    : rows_(rows),
      columns_(columns),
      indptr_(std::move(indptr)),
      indices_(std::move(indices)),
      data_(std::move(data)) {
  validate();
}

template <class T>
void CsrMatrix<T>::validate() const {
  constexpr std::size_t kMostColumns = std::numeric_limits<std::int32_t>::max();
  if (columns_ > kMostColumns) throw Error(ErrorKind::limit, "shape", "more than 2^31 - 1 columns");
  if (indices_.size() != data_.size()) {
    throw Error(ErrorKind::shape, "data",
                "expected one value per index, got " + number(static_cast<std::int64_t>(data_.size())) +
                    " values and " + number(static_cast<std::int64_t>(indices_.size())) + " indices");
  }
  validate_indptr(indptr_, rows_, data_.size());
  for (std::size_t row = 0; row < rows_; ++row) validate_row(row_indices(row), columns_, row);
}

template <class T>
CsrMatrix<T> CsrMatrix<T>::from_dense(std::span<const T> dense, std::size_t rows, std::size_t columns) {
  if (columns > std::numeric_limits<std::int32_t>::max())
    throw Error(ErrorKind::limit, "shape", "more than 2^31 - 1 columns");
  CsrMatrix matrix;
  matrix.rows_ = rows;
  matrix.columns_ = columns;
  matrix.indptr_.reserve(rows + 1);
  matrix.indptr_.push_back(0);
  const std::size_t nonzeros = count_nonzeros(dense);
  matrix.indices_.resize(nonzeros);
  matrix.data_.resize(nonzeros);
  std::int32_t* index = matrix.indices_.data();
  T* value = matrix.data_.data();
  for (std::size_t row = 0; row < rows; ++row) {
    const T* elements = dense.data() + row * columns;
    visit_nonzeros(elements, columns, [&](std::size_t column) {
      *index++ = static_cast<std::int32_t>(column);
      *value++ = elements[column];
    });
    matrix.indptr_.push_back(index - matrix.indices_.data());
  }
  return matrix;
}

template <class T>
void CsrMatrix<T>::to_dense(std::span<T> dense) const {
  std::fill(dense.begin(), dense.end(), T{0});
  for (std::size_t row = 0; row < rows_; ++row) {
    const auto indices = row_indices(row);
    const auto values = row_data(row);
    for (std::size_t e = 0; e < indices.size(); ++e)
      dense[row * columns_ + static_cast<std::size_t>(indices[e])] = values[e];
  }
}

template <class T>
CsrMatrix<T> CsrMatrix<T>::rows_between(std::size_t first, std::size_t last) const {
  CsrMatrix part;
  part.rows_ = last - first;
  part.columns_ = columns_;
  for (std::size_t row = first; row <= last; ++row) part.indptr_.push_back(indptr_[row] - indptr_[first]);
  const auto entries = [&](const auto& of) {
    return std::vector(of.begin() + indptr_[first], of.begin() + indptr_[last]);
  };
  part.indices_ = entries(indices_);
  part.data_ = entries(data_);
  return part;
}

template <class T>
std::span<const std::int32_t> CsrMatrix<T>::row_indices(std::size_t row) const noexcept {
  const auto begin = static_cast<std::size_t>(indptr_[row]), end = static_cast<std::size_t>(indptr_[row + 1]);
  return std::span(indices_).subspan(begin, end - begin);
}

template <class T>
std::span<const T> CsrMatrix<T>::row_data(std::size_t row) const noexcept {
  const auto begin = static_cast<std::size_t>(indptr_[row]), end = static_cast<std::size_t>(indptr_[row + 1]);
  return std::span(data_).subspan(begin, end - begin);
}

template class CsrMatrix<std::int8_t>;
template class CsrMatrix<float>;

}  // namespace gristmill
