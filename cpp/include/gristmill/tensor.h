#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gristmill/dtype.h"

namespace gristmill {

/// Where the elements of a plan's tensor are.
enum class Place : std::uint8_t {
  arena,    ///< scratch memory of a run
  input,    ///< an array that the caller of a run brings
  output,   ///< an array that a run fills
  constant  ///< memory that the plan keeps alive
};

/// Element type and shape; elements are contiguous in C order.
struct TensorType {
  DType dtype{};
  std::vector<std::size_t> shape;
  bool operator==(const TensorType&) const = default;
};

/// A part of a plan's memory, and what it holds.
struct Tensor {
  TensorType type;
  Place place{};
  std::size_t index = 0;   ///< which input or output
  std::size_t offset = 0;  ///< in bytes, from the start of the arena, input or output
  std::shared_ptr<const void> constant;

  DType dtype() const { return type.dtype; }
  const std::vector<std::size_t>& shape() const { return type.shape; }
  std::size_t rank() const { return type.shape.size(); }
};

/// Elements of an array of that shape; throws Error(limit) naming `where` if they are beyond the address
/// space.
std::size_t element_count(const std::vector<std::size_t>& shape, const char* where);
std::size_t byte_count(const TensorType& type, const char* where);

/// "(2, 3)" and "float32 (2, 3)", for errors.
std::string shape_text(const std::vector<std::size_t>& shape);
std::string type_text(const TensorType& type);

/// Any elements of a tensor: offset and strides count elements, strides may be zero or negative.
struct TensorView {
  Tensor tensor;
  std::vector<std::size_t> shape;
  std::vector<std::ptrdiff_t> strides;
  std::size_t offset = 0;

  /// All elements in C order.
  static TensorView whole(const Tensor& tensor);
};

/// Strides of a contiguous array in C order, counted in elements.
std::vector<std::ptrdiff_t> dense_strides(const std::vector<std::size_t>& shape);

}  // namespace gristmill
