#pragma once

#include <cstddef>
#include <cstdint>

#include "depthwise_kernels.h"

/// How the vectors of a level walk over a depthwise plane, whatever their width.
///
/// A level computes *spans*: runs of lanes that are consecutive in the source. A row of output pixels is one,
/// and so are several rows with the source elements between them, whose results nobody wants:
///
///     source      r0 r0 r0 r0 r0 -- -- r1 r1 r1 r1 r1 -- -- r2 r2 r2 r2 r2     source_row_step = 7
///     vectors     [          ][          ][          ][          ]
///     out         r0 r0 r0 r0 r0 r1 r1 r1 r1 r1 r2 r2 r2 r2 r2                 out_columns = 5
///
/// Rows that are not contiguous go through a buffer. Everything here is compiled by each level for itself.
namespace gristmill {
namespace {

constexpr std::size_t kSpanLanes = 1024;  // of a span of several rows

/// Copies `rows` rows of `bytes` each from `step` apart to one after the other, in whole chunks: what a chunk
/// brings beyond its row is overwritten by the next row, and nothing is written beyond the last.
template <std::size_t kChunk>
void gather_rows(const std::uint8_t* from, std::size_t step, std::size_t bytes, std::size_t rows,
                 std::uint8_t* out, const std::uint8_t* out_end) {
  const std::size_t whole = (bytes + kChunk - 1) / kChunk * kChunk;
  for (std::size_t y = 0; y < rows; ++y, from += step, out += bytes) {
    if (static_cast<std::size_t>(out_end - out) >= whole) {
      for (std::size_t i = 0; i < whole; i += kChunk) __builtin_memcpy(out + i, from + i, kChunk);
    } else {
      for (std::size_t i = 0; i < bytes; ++i) out[i] = from[i];
    }
  }
}

inline void gather_rows(const std::uint8_t* from, std::size_t step, std::size_t bytes, std::size_t rows,
                        std::uint8_t* out, const std::uint8_t* out_end) {
  if (bytes <= 8) return gather_rows<8>(from, step, bytes, rows, out, out_end);
  if (bytes <= 16) return gather_rows<16>(from, step, bytes, rows, out, out_end);
  gather_rows<32>(from, step, bytes, rows, out, out_end);
}

/// Rows to compute as one span: as many as the buffer holds where that takes fewer blocks than row by row.
inline std::size_t rows_per_span(std::size_t rows, std::size_t columns, std::size_t step, std::size_t block) {
  if (step < columns || 2 * step > kSpanLanes) return 1;
  const std::size_t row_blocks = rows * ((columns + block - 1) / block);
  const std::size_t span_blocks = (rows * step + block - 1) / block;
  if (span_blocks >= row_blocks) return 1;
  const std::size_t most = kSpanLanes / step;
  return rows < most ? rows : most;
}

/// Calls span(lane, count, out) for spans that cover the plane: lanes `lane`.. of the source, `count` of
/// them. A span of at least `kBlock` writes out[0 .. count), a shorter one may write out[0 .. kBlock).
template <std::size_t kBlock, std::size_t kElementBytes, class Span>
void for_each_span(const DepthwiseJob& job, Span span) {
  alignas(64) std::uint8_t buffer[(kSpanLanes + kBlock) * kElementBytes];
  std::size_t rows = job.out_rows, columns = job.out_columns;
  const std::size_t step = job.source_row_step;
  if (rows == 0 || columns == 0) return;
  if (step == columns) {
    columns *= rows;
    rows = 1;
  }
  auto* out = static_cast<std::uint8_t*>(job.out);
  const std::size_t row_bytes = columns * kElementBytes;
  const std::uint8_t* out_end = out + rows * row_bytes;
  const std::size_t at_once = rows_per_span(rows, columns, step, kBlock);
  for (std::size_t y = 0; y < rows; y += at_once) {
    const std::size_t count = rows - y < at_once ? rows - y : at_once;
    std::uint8_t* to = out + y * row_bytes;
    if (count == 1 && columns >= kBlock) {
      span(y * step, columns, to);
    } else {
      span(y * step, (count - 1) * step + columns, buffer);
      gather_rows(buffer, step * kElementBytes, row_bytes, count, to, out_end);
    }
  }
}

}  // namespace
}  // namespace gristmill
