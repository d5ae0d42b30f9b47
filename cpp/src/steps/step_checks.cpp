#include "step_checks.h"

namespace gristmill {

void require_dtype(const char* name, const Tensor& tensor, std::initializer_list<DType> allowed) {
  std::string names;
  for (DType type : allowed) {
    if (tensor.dtype() == type) return;
    names += (names.empty() ? "" : " or ") + std::string(dtype_name(type));
  }
  throw Error(ErrorKind::dtype, name, "expected " + names + ", got " + dtype_name(tensor.dtype()));
}

void require_rank(const char* name, const Tensor& tensor, std::size_t rank) {
  if (tensor.rank() == rank) return;
  throw Error(ErrorKind::shape, name,
              "expected rank " + std::to_string(rank) + ", got shape " + shape_text(tensor.shape()));
}

void require_shape(const char* name, const Tensor& tensor, const std::vector<std::size_t>& shape) {
  if (tensor.shape() == shape) return;
  throw Error(ErrorKind::shape, name,
              "expected shape " + shape_text(shape) + ", got " + shape_text(tensor.shape()));
}

void require_zero_point(const char* name, DType type, std::int32_t zero_point) {
  const std::int32_t least = type == DType::s8 ? -128 : 0, most = is_byte(type) ? least + 255 : 0;
  if (zero_point >= least && zero_point <= most) return;
  throw Error(ErrorKind::argument, name,
              "expected " + std::to_string(least) + " to " + std::to_string(most) + " for " +
                  dtype_name(type) + ", got " + std::to_string(zero_point));
}

std::size_t checked_axis(std::int64_t axis, std::size_t rank, const char* name) {
  const auto extent = static_cast<std::int64_t>(rank);
  if (axis < -extent || axis >= extent)
    throw Error(ErrorKind::shape, name,
                "is " + std::to_string(axis) + ", out of range for rank " + std::to_string(rank));
  return static_cast<std::size_t>(axis < 0 ? axis + extent : axis);
}

void require_reduced_shape(const char* name, const Tensor& out, const std::vector<std::size_t>& shape,
                           const std::vector<bool>& reduced) {
  std::vector<std::size_t> with, without;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    with.push_back(reduced[d] ? 1 : shape[d]);
    if (!reduced[d]) without.push_back(shape[d]);
  }
  if (out.shape() == with || out.shape() == without) return;
  throw Error(ErrorKind::shape, name,
              "expected shape " + shape_text(with) + " or " + shape_text(without) + ", got " +
                  shape_text(out.shape()));
}

AxisSplit split_at(const std::vector<std::size_t>& shape, std::size_t axis) {
  AxisSplit split;
  for (std::size_t d = 0; d < shape.size(); ++d)
    (d < axis ? split.outer : d == axis ? split.extent : split.inner) *= shape[d];
  return split;
}

}  // namespace gristmill
