#include <immintrin.h>

#include <cstddef>

#include "kernels/pool_lines.h"
#include "kernels/unroll.h"

namespace gristmill {
namespace {

/// The greatest of floats none of which is NaN. vmaxps yields its second operand unless the first one is
/// greater, as PoolMax does, but that may lose a NaN. So all elements are added up too, on other ports, and
/// where a sum is NaN, be it for infinities of both signs, the exact kernel does it over.
class QuickMaxAvx2 {
 public:
  static void rows(const PoolRowsJob<float>& job) {
    const bool done = job.slices == 1 && job.count >= kLanes &&
                      with_known(job.rows, [&](auto known) { return quick_rows<known.value>(job); });
    if (!done) Exact::kernels().rows(job);
  }

  static void taps(const PoolTapsJob<float>& job) {
    const bool done = job.stride == 2 && job.count >= kLanes &&
                      with_known(job.taps, [&](auto known) { return quick_taps<known.value>(job); });
    if (!done) Exact::kernels().taps(job);
  }

 private:
  using Exact = PoolLine<float, PoolMax, 32>;
  static constexpr std::size_t kLanes = 8;

  /// quick(the count), a constant if it is a frequent one and else 0.
  template <class Quick>
  static bool with_known(std::size_t count, Quick quick) {
    return count == 3 ? quick(Index<3>{}) : count == 2 ? quick(Index<2>{}) : quick(Index<0>{});
  }

  static bool is_nan(__m256 sum) { return _mm256_movemask_ps(_mm256_cmp_ps(sum, sum, _CMP_UNORD_Q)) != 0; }

  /// body(the index of the first element); the last vector ends with the last element.
  template <class Body>
  [[gnu::always_inline]] static void for_each_vector(std::size_t count, Body body) {
    for (std::size_t at = 0;;) {
      body(at);
      if (at + kLanes == count) return;
      at = at + 2 * kLanes <= count ? at + kLanes : count - kLanes;
    }
  }

  /// The greatest of load(i), i < count, all of which are added to `sum`. kKnown is the count, or 0.
  template <int kKnown, class Load>
  [[gnu::always_inline]] static __m256 greatest(std::size_t count, __m256& sum, Load load) {
    __m256 most = load(0), total = most;
    const auto combine = [&](std::size_t i) GRISTMILL_INLINE {
      const __m256 value = load(i);
      total = _mm256_add_ps(total, value);
      most = _mm256_max_ps(value, most);
    };
    if constexpr (kKnown != 0) {
      unroll<kKnown - 1>([&](auto i) GRISTMILL_INLINE { combine(i + 1); });
    } else {
      for (std::size_t i = 1; i < count; ++i) combine(i);
    }
    sum = _mm256_add_ps(sum, total);
    return most;
  }

  /// Works on a copy, which stores cannot change.
  template <int kKnown>
  static bool quick_rows(const PoolRowsJob<float> job) {
    __m256 sum = _mm256_setzero_ps();
    for_each_vector(job.count, [&](std::size_t at) GRISTMILL_INLINE {
      const float* row = job.x + at;
      const __m256 most = greatest<kKnown>(job.rows, sum, [&](std::size_t r) GRISTMILL_INLINE {
        return _mm256_loadu_ps(row + r * job.row_stride);
      });
      _mm256_storeu_ps(job.line + at, most);
    });
    return !is_nan(sum);
  }

  /// The windows of all elements, of which every second one is stored.
  template <int kKnown>
  static bool quick_taps(const PoolTapsJob<float> job) {
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for_each_vector(job.count, [&](std::size_t at) GRISTMILL_INLINE {
      __m256 most[2];
      unroll<2>([&](auto h) GRISTMILL_INLINE {
        const float* tap = job.line + 2 * at + h * kLanes;
        most[h] = greatest<kKnown>(job.taps, sum[h], [&](std::size_t t) GRISTMILL_INLINE {
          return _mm256_loadu_ps(tap + t * job.dilation);
        });
      });
      const __m256d even = _mm256_castps_pd(_mm256_shuffle_ps(most[0], most[1], 0x88));
      _mm256_storeu_ps(job.out + at, _mm256_castpd_ps(_mm256_permute4x64_pd(even, 0xD8)));
    });
    return !is_nan(_mm256_add_ps(sum[0], sum[1]));
  }
};

}  // namespace

void install_pool_avx2(PoolKernels& slots) {
  slots = pool_kernels<32>();
  slots.max_f32 = {QuickMaxAvx2::rows, QuickMaxAvx2::taps};
}

}  // namespace gristmill
