#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "gristmill/error.h"
#include "gristmill/tensor.h"

/// What steps ask of their tensors; each throws an Error that names the operand.
namespace gristmill {

void require_dtype(const char* name, const Tensor& tensor, std::initializer_list<DType> allowed);
void require_rank(const char* name, const Tensor& tensor, std::size_t rank);
void require_shape(const char* name, const Tensor& tensor, const std::vector<std::size_t>& shape);

/// In the range of a byte type, and 0 for f32.
void require_zero_point(const char* name, DType type, std::int32_t zero_point);

/// `axis` may count from the back.
std::size_t checked_axis(std::int64_t axis, std::size_t rank, const char* name);

/// The shape of `out` is `shape` with the reduced axes 1, or without them.
void require_reduced_shape(const char* name, const Tensor& out, const std::vector<std::size_t>& shape,
                           const std::vector<bool>& reduced);

/// A tensor as [outer][extent][inner] around one axis.
struct AxisSplit {
  std::size_t outer = 1, extent = 1, inner = 1;
};
AxisSplit split_at(const std::vector<std::size_t>& shape, std::size_t axis);

}  // namespace gristmill
