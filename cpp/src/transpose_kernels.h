#pragma once

#include <cstddef>
#include <cstdint>

/// Transposition of matrices in memory: what brings the rows of a batch into lanes, and lanes back into rows.
namespace gristmill {

/// Element (c, r) of `to` = element (r, c) of `from` XOR flip, for r < rows and c < columns. Strides are in
/// bytes, and no element need be aligned.
template <class T>
struct TransposeJob {
  const void* from;
  std::size_t from_stride;
  void* to;
  std::size_t to_stride;
  std::size_t rows, columns;
  T flip;
};

struct TransposeKernels {
  void (*bytes)(const TransposeJob<std::uint8_t>& job);
  void (*words)(const TransposeJob<std::uint32_t>& job);
};

}  // namespace gristmill
