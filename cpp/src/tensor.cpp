#include "gristmill/tensor.h"

#include "checked_size.h"
#include "gristmill/error.h"

namespace gristmill {

std::size_t element_count(const std::vector<std::size_t>& shape, const char* where) {
  std::size_t count = 1;
  for (std::size_t extent : shape) {
    if (extent > kMostElements) throw Error(ErrorKind::limit, where, "its size is beyond the address space");
    if (extent == 0) return 0;
  }
  for (std::size_t extent : shape) count = checked_product({count, extent}, where);
  return count;
}

std::size_t byte_count(const TensorType& type, const char* where) {
  return checked_product({element_count(type.shape, where), element_size(type.dtype)}, where);
}

std::string shape_text(const std::vector<std::size_t>& shape) {
  std::string text;
  for (std::size_t extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent);
  return "(" + text + (shape.size() == 1 ? ",)" : ")");
}

std::string type_text(const TensorType& type) {
  return std::string(dtype_name(type.dtype)) + " " + shape_text(type.shape);
}

std::vector<std::ptrdiff_t> dense_strides(const std::vector<std::size_t>& shape) {
  std::vector<std::ptrdiff_t> strides(shape.size());
  std::ptrdiff_t step = 1;
  for (std::size_t d = shape.size(); d-- > 0;) {
    strides[d] = step;
    step *= static_cast<std::ptrdiff_t>(shape[d] == 0 ? 1 : shape[d]);
  }
  return strides;
}

TensorView TensorView::whole(const Tensor& tensor) {
  element_count(tensor.shape(), "tensor");
  return {tensor, tensor.shape(), dense_strides(tensor.shape()), 0};
}

}  // namespace gristmill
