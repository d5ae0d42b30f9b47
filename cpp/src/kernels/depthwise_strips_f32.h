#pragma once

#include <cstddef>

#include "depthwise_kernels.h"
#include "kernels/strided.h"
#include "kernels/unroll.h"

/// The f32 kernel of a level for strips, for its vectors `V`, the `Lanes` of one and its `Pair`s:
///
///     const Lanes lanes(first, count)    lanes first .. first + count
///     lanes.load(from)                   loads those, and zeros
///     const Pair pair(a, b)              two vectors, whose even and odd elements are even() and odd()
///     Pair::shifted(x, before)           element 0 of `before`, then all of x but the last
///
/// A strip is a vector of columns of the output. The kernel walks down the rows of the input and reads each
/// once: what a row adds to the rows of the output that it is next to waits in registers until they are
/// complete. That is for levels of 32 vector registers (avx2/depthwise_strips_f32_avx2.cpp has 16).
///
/// Everything here is compiled by each level for itself.
namespace gristmill {
namespace {

/// What the taps of a kernel row read.
template <class V>
struct TapVectors {
  typename V::Vector left, centre, right;
};

/// Those of a strip of columns `first` to `first + count` of the output.
template <class V, class Lanes>
class PlainTaps {
 public:
  [[gnu::always_inline]] PlainTaps(std::size_t columns, std::size_t first, std::size_t count)
      : left_(first == 0 ? 1 : 0, first == 0 ? count - 1 : count),
        centre_(0, count),
        right_(0, first + count == columns ? count - 1 : count) {}
  [[gnu::always_inline]] TapVectors<V> load(const float* from) const {
    return {left_.load(from - 1), centre_.load(from), right_.load(from + 1)};
  }

 private:
  Lanes left_, centre_, right_;
};

/// The same for a stride of two.
template <class V, class Lanes, class Pair>
class StridedTaps {
 public:
  [[gnu::always_inline]] StridedTaps(std::size_t columns, std::size_t first, std::size_t)
      : before_(0, first == 0 ? 0 : 1),
        low_(0, part(columns - 2 * first)),
        high_(0, part(columns - 2 * first < V::kWidth ? 0 : columns - 2 * first - V::kWidth)) {}
  [[gnu::always_inline]] TapVectors<V> load(const float* from) const {
    const Pair pair(low_.load(from), high_.load(from + V::kWidth));
    const auto odd = pair.odd();
    return {Pair::shifted(odd, before_.load(from - 1)), pair.even(), odd};
  }

 private:
  static std::size_t part(std::size_t count) { return count < V::kWidth ? count : V::kWidth; }

  Lanes before_, low_, high_;
};

/// One plane of the output.
template <class V, class Taps, int kStride>
class StripPlane {
 public:
  using Vector = typename V::Vector;

  [[gnu::always_inline]] StripPlane(const DepthwiseStripsJob& job, const EpilogueF32& epilogue, std::size_t m)
      : rows_(job.rows),
        columns_(job.columns),
        out_columns_(strided<kStride>(job.columns)),
        size_(strided<kStride>(job.rows) * out_columns_),
        bias_(V::broadcast(epilogue.bias + m)),
        low_(V::broadcast(&epilogue.low)),
        high_(V::broadcast(&epilogue.high)) {
    unroll<9>([&](auto i) GRISTMILL_INLINE {
      weights_[i] = V::broadcast(static_cast<const float*>(job.weights) + 9 * m + i);
    });
  }

  [[gnu::always_inline]] void convolve(const float* plane, float* out) const {
    if (out_columns_ <= V::kWidth) return convolve_strip(plane, out, 0, out_columns_);
    const std::size_t last = out_columns_ - V::kWidth;
    for (std::size_t first = 0; first < last; first += V::kWidth)
      convolve_strip(plane, out, first, V::kWidth);
    convolve_strip(plane, out, last, V::kWidth);
  }

 private:
  /// Where a vector is wider than the plane, the next row overwrites what is beyond this one.
  [[gnu::always_inline]] void convolve_strip(const float* plane, float* out, std::size_t first,
                                             std::size_t count) const {
    const Taps taps(columns_, first, count);
    const float* from = plane + kStride * first;
    std::size_t at = first;
    const auto store = [&](Vector sum) GRISTMILL_INLINE {
      const Vector result = V::clamp(V::add(sum, bias_), low_, high_);
      at + V::kWidth <= size_ ? V::store(out + at, result) : V::store_first(out + at, result, count);
      at += out_columns_;
    };
    const auto next_row = [&]() GRISTMILL_INLINE {
      const TapVectors<V> x = taps.load(from);
      from += columns_;
      return x;
    };
    Vector above = V::zero(), here = V::zero();
    if constexpr (kStride == 1) {
      const auto add_row = [&]() GRISTMILL_INLINE {
        const TapVectors<V> x = next_row();
        const Vector complete = add(x, 2, above);
        above = add(x, 1, here);
        here = add(x, 0, V::zero());
        return complete;
      };
      add_row();
      for (std::size_t row = rows_ - 1; row > 0; --row) store(add_row());
      store(above);
    } else {
      for (std::size_t row = rows_ / 2; row > 0; --row) {
        here = add(next_row(), 1, above);
        const TapVectors<V> x = next_row();
        above = add(x, 0, V::zero());
        store(add(x, 2, here));
      }
      if (rows_ % 2 != 0) store(add(next_row(), 1, above));
    }
  }

  [[gnu::always_inline]] Vector add(const TapVectors<V>& x, int row, Vector sum) const {
    const Vector* weights = weights_ + 3 * row;
    return V::fma(x.right, weights[2], V::fma(x.centre, weights[1], V::fma(x.left, weights[0], sum)));
  }

  const std::size_t rows_, columns_, out_columns_, size_;  // size_ is of the output
  Vector weights_[9], bias_, low_, high_;
};

template <class V, class Taps, int kStride>
void convolve_planes(const DepthwiseStripsJob& job) {
  const std::size_t in_plane = job.rows * job.columns;
  const std::size_t out_plane = strided<kStride>(job.rows) * strided<kStride>(job.columns);
  const auto* source = static_cast<const float*>(job.source);
  const auto& epilogue = *static_cast<const EpilogueF32*>(job.epilogue);
  auto* out = static_cast<float*>(job.out);
  for (std::size_t m = 0; m < job.planes; ++m, source += in_plane, out += out_plane)
    StripPlane<V, Taps, kStride>(job, epilogue, m).convolve(source, out);
}

template <class V, class Lanes, class Pair>
void strips_f32(const DepthwiseStripsJob& job) {
  if (job.stride == 1) return convolve_planes<V, PlainTaps<V, Lanes>, 1>(job);
  convolve_planes<V, StridedTaps<V, Lanes, Pair>, 2>(job);
}

}  // namespace
}  // namespace gristmill
