#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "aligned_buffer.h"
#include "gristmill/sparse.h"
#include "window_kernels.h"

namespace gristmill {

/// Sparse weights as the steps of window_kernels.h, for layers that run on few rows of activations.
struct PackedWindows {
  const WindowFormat* format = nullptr;
  std::size_t rows = 0, columns = 0;
  std::vector<std::uint32_t> base, start;
  AlignedBuffer entries;

  std::size_t groups() const { return start.size() - 1; }
  std::size_t bytes() const { return entries.bytes() + (base.size() + start.size()) * sizeof(std::uint32_t); }
  /// Elements of an input that must be readable.
  std::size_t padded_columns() const {
    return (columns + format->stride - 1) / format->stride * format->stride + format->window;
  }
};

/// Explicit zeros are dropped.
template <class T>
PackedWindows pack_windows(const CsrMatrix<T>& weights, const WindowFormat& format);

}  // namespace gristmill
