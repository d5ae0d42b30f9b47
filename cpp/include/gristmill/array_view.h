#pragma once

#include <cstddef>
#include <vector>

namespace gristmill {

/// A borrowed n-dimensional array, as numpy has it: strides are in bytes and may be zero, negative, or no
/// multiple of the element size; `data` points to the element whose indices are all zero. Rank 0 is one
/// element.
template <class T>
struct ArrayView {
  T* data = nullptr;
  std::vector<std::size_t> shape;
  std::vector<std::ptrdiff_t> strides;
};

}  // namespace gristmill
