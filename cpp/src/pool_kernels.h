#pragma once

#include <cstddef>
#include <cstdint>

/// Windows of a pooling, combined first along the rows of x into one line, then along the line: kernel rows +
/// kernel columns operations instead of their product, on consecutive elements.
///
///     line[i] = x(0, i) . x(1, i) . ...                        slices, and in them rows, in order
///     out[o]  = line[o stride] . line[o stride + dilation] . ...
///
/// where a . b is the sum a + b, or the greater: b where b > a or b is NaN, else a. Results are bit-identical
/// on every level, but for the kind of NaN that a sum gives.
namespace gristmill {

/// x(slice, row) is the line of `count` elements from x + slice * slice_stride + row * row_stride on. There
/// is at least one.
template <class T>
struct PoolRowsJob {
  const T* x;
  std::size_t slices, slice_stride;
  std::size_t rows, row_stride;
  T* line;
  std::size_t count;
};

/// At least one tap. One element more than the last output needs of the line is readable.
template <class T>
struct PoolTapsJob {
  const T* line;
  std::size_t taps, dilation, stride;
  T* out;
  std::size_t count;
};

template <class T>
struct PoolLines {
  void (*rows)(const PoolRowsJob<T>& job);
  void (*taps)(const PoolTapsJob<T>& job);
};

struct PoolKernels {
  PoolLines<std::uint8_t> max_u8;
  PoolLines<std::int8_t> max_s8;
  PoolLines<float> max_f32, sum_f32;
};

}  // namespace gristmill
