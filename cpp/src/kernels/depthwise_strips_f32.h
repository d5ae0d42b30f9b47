#pragma once

#include <cstddef>

#include "depthwise_kernels.h"
#include "kernels/unroll.h"

/// The f32 kernel of a level for strips, for its vectors `V` and the `Lanes` of one:
///
///     const Lanes lanes(first, count)    lanes first .. first + count
///     lanes.load(from)                   loads those, and zeros
///
/// A strip is a vector of columns. The kernel walks down its rows and reads each once: what a row adds to
/// the three rows of the output that it is next to waits in registers until they are complete.
///
/// Everything here is compiled by each level for itself.
namespace gristmill {
namespace {

template <class V, class Lanes>
class StripPlane {
 public:
  using Vector = typename V::Vector;

  [[gnu::always_inline]] StripPlane(const DepthwiseStripsJob& job, std::size_t m)
      : job_(job),
        bias_(V::broadcast(job.epilogue->bias + m)),
        low_(V::broadcast(&job.epilogue->low)),
        high_(V::broadcast(&job.epilogue->high)),
        size_(job.rows * job.columns) {
    unroll<9>([&](auto i) GRISTMILL_INLINE { weights_[i] = V::broadcast(job.weights + 9 * m + i); });
  }

  /// Columns `first` to `first + count` of the output. Where a vector is wider than the plane, the next row
  /// overwrites what is beyond this one.
  [[gnu::always_inline]] void convolve(const float* plane, float* out, std::size_t first,
                                       std::size_t count) const {
    const std::size_t columns = job_.columns, skipped = first == 0 ? 1 : 0;
    const Lanes left(skipped, count - skipped), centre(0, count),
        right(0, first + count == columns ? count - 1 : count);
    const float* from = plane + first;
    std::size_t at = first;
    const auto store = [&](Vector sum) GRISTMILL_INLINE {
      const Vector result = V::clamp(V::add(sum, bias_), low_, high_);
      at + V::kWidth <= size_ ? V::store(out + at, result) : V::store_first(out + at, result, count);
      at += columns;
    };
    Vector above = V::zero(), here = V::zero();
    const auto add_row = [&]() GRISTMILL_INLINE {
      const Vector x[3] = {left.load(from - 1), centre.load(from), right.load(from + 1)};
      const Vector complete = add(x, 2, above);
      above = add(x, 1, here);
      here = add(x, 0, V::zero());
      from += columns;
      return complete;
    };
    add_row();
    for (std::size_t row = job_.rows - 1; row > 0; --row) store(add_row());
    store(above);
  }

 private:
  [[gnu::always_inline]] Vector add(const Vector (&x)[3], int row, Vector sum) const {
    unroll<3>([&](auto tap) GRISTMILL_INLINE { sum = V::fma(x[tap], weights_[3 * row + tap], sum); });
    return sum;
  }

  const DepthwiseStripsJob& job_;
  Vector weights_[9], bias_, low_, high_;
  std::size_t size_;
};

template <class V, class Lanes>
void strips_f32(const DepthwiseStripsJob& job) {
  const std::size_t plane = job.rows * job.columns;
  const float* source = job.source;
  float* out = job.out;
  for (std::size_t m = 0; m < job.planes; ++m, source += plane, out += plane) {
    const StripPlane<V, Lanes> strips(job, m);
    if (job.columns <= V::kWidth) {
      strips.convolve(source, out, 0, job.columns);
      continue;
    }
    const std::size_t last = job.columns - V::kWidth;
    for (std::size_t first = 0; first < last; first += V::kWidth)
      strips.convolve(source, out, first, V::kWidth);
    strips.convolve(source, out, last, V::kWidth);
  }
}

}  // namespace
}  // namespace gristmill
