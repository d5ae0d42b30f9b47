#include <cstdint>
#include <string>
#include <vector>

#include "guarded_buffer.h"
#include "harness.h"
#include "kernel_table.h"

using namespace gristmill;
using namespace harness;

namespace {

template <class T>
void check(void (*transpose)(const TransposeJob<T>&), std::size_t rows, std::size_t columns, Edge edge,
           Random& random) {
  const std::size_t from_stride = columns + rows % 3, to_stride = rows + columns % 3;
  const auto extent = [](std::size_t lines, std::size_t stride, std::size_t last) {
    return lines == 0 || last == 0 ? 0 : (lines - 1) * stride + last;
  };
  GuardedBuffer<T> from(extent(rows, from_stride, columns), edge), to(extent(columns, to_stride, rows), edge);
  for (T& value : from.span()) value = static_cast<T>(random.integer(0, 0x7FFFFFFF));
  for (T& value : to.span()) value = 77;
  const T flip = static_cast<T>(rows % 2 == 0 ? 0 : 0x80808080u);
  std::vector<T> expected(to.size(), 77);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c)
      expected[c * to_stride + r] = static_cast<T>(from[r * from_stride + c] ^ flip);
  transpose({from.data(), from_stride * sizeof(T), to.data(), to_stride * sizeof(T), rows, columns, flip});
  CHECK_SAME(to.view(), std::span<const T>(expected), std::to_string(rows) + "x" + std::to_string(columns));
}

template <class T>
void sweep(void (*transpose)(const TransposeJob<T>&)) {
  Random random(41);
  const std::vector<std::size_t> sizes{0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 70};
  for (std::size_t rows : sizes)
    for (std::size_t columns : sizes)
      for (Edge edge : {Edge::low, Edge::high}) check(transpose, rows, columns, edge, random);
}

}  // namespace

ISA_TEST(transpose_bytes_moves_every_element) { sweep(kernel_table(isa).transpose.bytes); }

ISA_TEST(transpose_words_moves_every_element) { sweep(kernel_table(isa).transpose.words); }
