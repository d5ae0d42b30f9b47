#pragma once

#include <cstddef>

/// Everything here is compiled by each level for itself.
namespace gristmill {
namespace {

/// Rows or columns of the output of a kernel with that stride whose padding keeps the size.
template <int kStride>
constexpr std::size_t strided(std::size_t extent) {
  return (extent + kStride - 1) / kStride;
}

}  // namespace
}  // namespace gristmill
