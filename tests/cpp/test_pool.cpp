#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "guarded_buffer.h"
#include "harness.h"
#include "kernel_table.h"

using namespace gristmill;
using namespace harness;

namespace {

/// Any element: for f32 the first `kinds` special ones among them.
template <class T>
T any_element(std::int64_t kinds, Random& random) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(random.integer(0, 255));
  } else {
    constexpr float kSpecial[] = {0.0F, -0.0F, std::numeric_limits<float>::infinity(),
                                  -std::numeric_limits<float>::infinity(),
                                  std::numeric_limits<float>::quiet_NaN()};
    const std::int64_t kind = random.integer(0, 40);
    return kind < kinds ? kSpecial[kind] : static_cast<float>(random.integer(-1000, 1000)) / 7.0F;
  }
}

/// Zeros of both signs among them, and infinities and NaN every other time.
template <class T>
void fill_any(std::span<T> elements, Random& random) {
  const std::int64_t kinds = random.integer(0, 1) == 0 ? 2 : 5;
  for (T& element : elements) element = any_element<T>(kinds, random);
}

template <class T>
T greater(T most, T value) {
  return value > most || std::isnan(static_cast<double>(value)) ? value : most;
}

float sum(float a, float b) { return a + b; }

/// NaN has many bit patterns, of which a sum may be any: each becomes a number that is no sum.
template <class T>
std::vector<T> with_one_nan(std::span<const T> values) {
  std::vector<T> same(values.begin(), values.end());
  if constexpr (std::is_floating_point_v<T>)
    for (T& value : same)
      if (std::isnan(value)) value = std::numeric_limits<T>::max();
  return same;
}

template <class T>
void check_equal(std::span<const T> actual, const std::vector<T>& expected, const std::string& label) {
  const std::vector<T> a = with_one_nan(actual), b = with_one_nan(std::span<const T>(expected));
  CHECK_SAME(std::span<const T>(a), std::span<const T>(b), label);
}

template <class T>
void check_rows(const PoolLines<T>& lines, T (*combine)(T, T), std::size_t count, Edge edge, Random& random) {
  for (std::size_t slices : {1, 2})
    for (std::size_t rows : {1, 2, 3, 5}) {
      const std::size_t row_stride = count + rows % 2, slice_stride = rows * row_stride + 3;
      GuardedBuffer<T> x((slices - 1) * slice_stride + (rows - 1) * row_stride + count, edge);
      GuardedBuffer<T> line(count, edge);
      fill_any(x.span(), random);
      std::vector<T> expected(x.data(), x.data() + count);
      for (std::size_t part = 1; part < slices * rows; ++part)
        for (std::size_t i = 0; i < count; ++i)
          expected[i] = combine(expected[i], x[part / rows * slice_stride + part % rows * row_stride + i]);
      lines.rows({x.data(), slices, slice_stride, rows, row_stride, line.data(), count});
      check_equal(
          line.view(), expected,
          std::to_string(count) + " elements of " + std::to_string(slices) + "x" + std::to_string(rows));
    }
}

template <class T>
void check_taps(const PoolLines<T>& lines, T (*combine)(T, T), std::size_t count, Edge edge, Random& random) {
  for (std::size_t stride : {1, 2, 3})
    for (std::size_t taps : {1, 2, 3, 6})
      for (std::size_t dilation : {1, 4}) {
        const std::size_t reach = count == 0 ? 0 : (count - 1) * stride + (taps - 1) * dilation + 2;
        GuardedBuffer<T> line(reach, edge), out(count, edge);
        fill_any(line.span(), random);
        std::vector<T> expected(count);
        for (std::size_t o = 0; o < count; ++o) {
          expected[o] = line[o * stride];
          for (std::size_t t = 1; t < taps; ++t)
            expected[o] = combine(expected[o], line[o * stride + t * dilation]);
        }
        lines.taps({line.data(), taps, dilation, stride, out.data(), count});
        check_equal(out.view(), expected,
                    std::to_string(count) + " outputs of " + std::to_string(taps) + " taps, stride " +
                        std::to_string(stride) + ", dilation " + std::to_string(dilation));
      }
}

template <class T>
void sweep(const PoolLines<T>& lines, T (*combine)(T, T)) {
  Random random(43);
  for (std::size_t count : {0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 70, 129})
    for (Edge edge : {Edge::low, Edge::high}) {
      check_rows(lines, combine, count, edge, random);
      check_taps(lines, combine, count, edge, random);
    }
}

}  // namespace

ISA_TEST(pool_takes_the_greatest_of_bytes) {
  sweep<std::uint8_t>(kernel_table(isa).pool.max_u8, greater);
  sweep<std::int8_t>(kernel_table(isa).pool.max_s8, greater);
}

ISA_TEST(pool_takes_the_greatest_of_floats) { sweep<float>(kernel_table(isa).pool.max_f32, greater); }

ISA_TEST(pool_sums_floats_in_order) { sweep<float>(kernel_table(isa).pool.sum_f32, sum); }
