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
  /// Elements that an input takes, of which windows may read all.
  std::size_t input_elements() const { return (columns + format->window + 63) / 64 * 64; }
  /// Writes an input of that many bytes per element, each byte XOR `flip`, zeros beyond its end.
  void lay_out(const void* x, std::size_t element, std::uint8_t flip, void* to) const;
};

/// Explicit zeros are dropped.
template <class T>
PackedWindows pack_windows(const CsrMatrix<T>& weights, const WindowFormat& format);

}  // namespace gristmill
