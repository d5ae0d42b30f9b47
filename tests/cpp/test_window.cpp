#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "epilogue_kernels.h"
#include "guarded_buffer.h"
#include "harness.h"
#include "kernel_table.h"
#include "packed_windows.h"

using namespace gristmill;
using namespace harness;

namespace {

struct Shape {
  std::size_t rows, columns, inputs;
  int keep;  // of a hundred weights
};

/// Runs a format on guarded buffers: x is readable exactly as far as the contract says.
template <class W, class X, class Out>
std::vector<Out> run(const WindowFormat& format, const std::vector<W>& dense, const Shape& shape,
                     const std::vector<X>& x, const void* epilogue, Edge edge) {
  const auto packed = pack_windows(CsrMatrix<W>::from_dense(dense, shape.rows, shape.columns), format);
  GuardedBuffer<std::byte> entries(packed.entries.bytes(), edge);
  std::copy_n(static_cast<const std::byte*>(packed.entries.data()), entries.size(), entries.data());
  const std::size_t stride = packed.input_elements(), out_stride = shape.rows + 3;
  GuardedBuffer<X> padded(shape.inputs * stride, edge);
  for (std::size_t n = 0; n < shape.inputs; ++n)
    packed.lay_out(x.data() + n * shape.columns, sizeof(X), 0, padded.data() + n * stride);
  GuardedBuffer<Out> out((shape.inputs - 1) * out_stride + shape.rows, edge);
  const std::size_t half = packed.groups() / 2;
  for (std::size_t n = 0; n < shape.inputs; n += format.at_once)
    for (const auto& [first, last] : {std::pair{std::size_t{0}, half}, {half, packed.groups()}})
      format.multiply({entries.data(), packed.base.data(), packed.start.data(), first, last, shape.rows,
                       padded.data() + n * stride, std::min(format.at_once, shape.inputs - n), stride,
                       epilogue, out.data() + n * out_stride, out_stride});
  std::vector<Out> result;
  for (std::size_t n = 0; n < shape.inputs; ++n)
    result.insert(result.end(), out.data() + n * out_stride, out.data() + n * out_stride + shape.rows);
  return result;
}

std::vector<Shape> shapes(Random& random) {
  std::vector<Shape> all;
  for (int keep : {0, 1, 5, 20, 100})
    for (std::size_t columns : {1, 15, 16, 17, 64, 65, 127, 128, 129, 255, 256, 257, 600})
      all.push_back({static_cast<std::size_t>(random.integer(1, 200)), columns,
                     static_cast<std::size_t>(random.integer(1, 16)), keep});
  return all;
}

}  // namespace

ISA_TEST(window_s8_equals_the_definition) {
  Random random(51);
  for (const Shape& shape : shapes(random)) {
    std::vector<std::int8_t> w(shape.rows * shape.columns);
    for (auto& v : w)
      if (random.integer(0, 99) < shape.keep)
        v = static_cast<std::int8_t>(random.integer(0, 3) == 0 ? 127 : random.integer(-128, 127));
    std::vector<std::uint8_t> x(shape.inputs * shape.columns);
    for (auto& v : x) v = static_cast<std::uint8_t>(random.integer(0, 2) == 0 ? 255 : random.integer(0, 255));
    std::vector<std::int32_t> bias(shape.rows), expected;
    for (auto& b : bias) b = static_cast<std::int32_t>(random.integer(-1000, 1000));
    for (std::size_t n = 0; n < shape.inputs; ++n)
      for (std::size_t m = 0; m < shape.rows; ++m) {
        std::int32_t sum = bias[m];
        for (std::size_t k = 0; k < shape.columns; ++k)
          sum += w[m * shape.columns + k] * x[n * shape.columns + k];
        expected.push_back(sum);
      }
    const EpilogueS8 epilogue{bias.data(), nullptr, 0, 0, 0, OutputType::s32};
    const WindowKernels& kernels = kernel_table(isa).window;
    for (const WindowFormat* format : {&kernels.s8, &kernels.s8_wide, &kernels.spare_s8_wide})
      for (Edge edge : {Edge::low, Edge::high}) {
        if (format->multiply == nullptr) continue;
        const auto out = run<std::int8_t, std::uint8_t, std::int32_t>(*format, w, shape, x, &epilogue, edge);
        CHECK_SAME(std::span<const std::int32_t>(out), std::span<const std::int32_t>(expected),
                   std::to_string(shape.columns));
      }
  }
}

/// Whole numbers, so that sums are exact in any order; an infinite activation meets no weight.
ISA_TEST(window_f32_multiplies_nonzeros_alone) {
  Random random(52);
  for (const Shape& shape : shapes(random)) {
    std::vector<float> w(shape.rows * shape.columns), x(shape.inputs * shape.columns);
    const std::size_t infinite = shape.columns / 2;
    for (std::size_t i = 0; i < w.size(); ++i)
      if (i % shape.columns != infinite && random.integer(0, 99) < shape.keep)
        w[i] = static_cast<float>(random.integer(-100, 100));
    for (auto& v : x) v = static_cast<float>(random.integer(-100, 100));
    std::vector<float> bias(shape.rows, 0.5f), expected;
    for (std::size_t n = 0; n < shape.inputs; ++n) {
      x[n * shape.columns + infinite] = std::numeric_limits<float>::infinity();
      for (std::size_t m = 0; m < shape.rows; ++m) {
        float sum = 0.5f;
        for (std::size_t k = 0; k < shape.columns; ++k)
          if (k != infinite) sum += w[m * shape.columns + k] * x[n * shape.columns + k];
        expected.push_back(sum);
      }
    }
    const float limit = std::numeric_limits<float>::infinity();
    const EpilogueF32 epilogue{bias.data(), -limit, limit};
    for (Edge edge : {Edge::low, Edge::high}) {
      const auto out = run<float, float, float>(kernel_table(isa).window.f32, w, shape, x, &epilogue, edge);
      CHECK_SAME(std::span<const float>(out), std::span<const float>(expected),
                 std::to_string(shape.columns));
    }
  }
}

TEST(windows_bring_safe_partners_together) {
  const WindowFormat format{1, 4, 32, 1, 1, 0, true, 4, nullptr};
  const std::vector<std::int8_t> partners{127, 100, -5, 3}, alone{127, 100, 99, 98};
  CHECK_EQ(pack_windows(CsrMatrix<std::int8_t>::from_dense(partners, 1, 4), format).base.size(), 1u);
  CHECK_EQ(pack_windows(CsrMatrix<std::int8_t>::from_dense(alone, 1, 4), format).base.size(), 2u);
}
