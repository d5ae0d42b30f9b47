#pragma once

#include <cstddef>
#include <utility>

#include "kernels/pool_combine.h"
#include "kernels/unroll.h"
#include "pool_kernels.h"

/// The pooling kernels of all vector levels, in the vectors that the compiler maps to those of the level's
/// flags. Outputs are computed a vector at a time; the last one ends with the last output and computes some a
/// second time, and where there are fewer outputs than elements, narrower vectors are used.
namespace gristmill {
namespace {

template <class T, std::size_t bytes>
struct PoolVector {
  typedef T Type __attribute__((vector_size(bytes)));
  static constexpr std::size_t kLanes = bytes / sizeof(T);

  /// Neighbouring elements, or every second one.
  template <int stride = 1>
  [[gnu::always_inline]] static Type load(const T* from) {
    if constexpr (stride == 2)
      return even(load(from), load(from + kLanes), std::make_integer_sequence<int, int{kLanes}>());
    Type v;
    __builtin_memcpy(&v, from, bytes);
    return v;
  }
  [[gnu::always_inline]] static void store(T* to, Type v) { __builtin_memcpy(to, &v, bytes); }

 private:
  template <int... I>
  [[gnu::always_inline]] static Type even(Type a, Type b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (2 * I)...);
  }
};

template <class T, template <class> class Combine, std::size_t bytes>
struct PoolLine {
  static constexpr PoolLines<T> kernels() { return {rows, taps}; }

 private:
  static void rows(const PoolRowsJob<T>& job) {
    if (job.slices == 1) return with_known(job.rows, [&](auto known) { slice_rows(job, known); });
    for_each_vector(job.count, [&](auto vector, std::size_t at) GRISTMILL_INLINE {
      auto sum = vector.load(job.x + at);
      for (std::size_t i = 1; i < job.slices * job.rows; ++i) {
        const T* row = job.x + i / job.rows * job.slice_stride + i % job.rows * job.row_stride;
        sum = Combine<T>::combine(sum, vector.load(row + at));
      }
      vector.store(job.line + at, sum);
    });
  }

  template <int known>
  static void slice_rows(const PoolRowsJob<T>& job, Index<known>) {
    const std::size_t rows = known != 0 ? known : job.rows, stride = job.row_stride;
    for_each_vector(job.count, [&](auto vector, std::size_t at) GRISTMILL_INLINE {
      const T* row = job.x + at;
      auto sum = vector.load(row);
      for (std::size_t r = 1; r < rows; ++r) sum = Combine<T>::combine(sum, vector.load(row += stride));
      vector.store(job.line + at, sum);
    });
  }

  static void taps(const PoolTapsJob<T>& job) {
    if (job.stride == 1) {
      with_known(job.taps, [&](auto known) { each_tap<1>(job, known); });
    } else if (job.stride == 2) {
      with_known(job.taps, [&](auto known) { each_tap<2>(job, known); });
    } else {
      for (std::size_t o = 0; o < job.count; ++o) {
        const T* tap = job.line + o * job.stride;
        T sum = *tap;
        for (std::size_t t = 1; t < job.taps; ++t) sum = Combine<T>::combine(sum, *(tap += job.dilation));
        job.out[o] = sum;
      }
    }
  }

  template <int stride, int known>
  static void each_tap(const PoolTapsJob<T>& job, Index<known>) {
    const std::size_t taps = known != 0 ? known : job.taps, dilation = job.dilation;
    for_each_vector(job.count, [&](auto vector, std::size_t at) GRISTMILL_INLINE {
      const T* tap = job.line + at * stride;
      auto sum = vector.template load<stride>(tap);
      for (std::size_t t = 1; t < taps; ++t)
        sum = Combine<T>::combine(sum, vector.template load<stride>(tap += dilation));
      vector.store(job.out + at, sum);
    });
  }

  /// body(the count, if it is a usual one, else 0)
  template <class Body>
  static void with_known(std::size_t count, Body body) {
    if (count == 2)
      body(Index<2>());
    else if (count == 3)
      body(Index<3>());
    else
      body(Index<0>());
  }

  /// body(a PoolVector, the index of its first element)
  template <std::size_t width = bytes, class Body>
  [[gnu::always_inline]] static void for_each_vector(std::size_t count, Body body) {
    using Vector = PoolVector<T, width>;
    if (count < Vector::kLanes) {
      if constexpr (width > sizeof(T)) for_each_vector<width / 2>(count, body);
      return;
    }
    std::size_t at = 0;
    for (; at + Vector::kLanes <= count; at += Vector::kLanes) body(Vector(), at);
    if (at < count) body(Vector(), count - Vector::kLanes);
  }
};

template <std::size_t bytes>
constexpr PoolKernels pool_kernels() {
  return {PoolLine<std::uint8_t, PoolMax, bytes>::kernels(), PoolLine<std::int8_t, PoolMax, bytes>::kernels(),
          PoolLine<float, PoolMax, bytes>::kernels(), PoolLine<float, PoolSum, bytes>::kernels()};
}

}  // namespace
}  // namespace gristmill
