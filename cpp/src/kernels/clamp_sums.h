#pragma once

#include "kernels/unroll.h"

namespace gristmill {
namespace {

/// Clamps f32 sums, and keeps NaN. Leaves out a bound that nothing exceeds: in a short tile or row that
/// tells.
template <class Simd, int R, int N>
[[gnu::always_inline]] inline void clamp_sums(typename Simd::Vector (&sum)[R][N], const float& low,
                                              const float& high) {
  using Vector = typename Simd::Vector;
  if (low != -__builtin_inff()) {
    const Vector least = Simd::broadcast(&low);
    unroll<R>([&](auto r) GRISTMILL_INLINE {
      unroll<N>([&](auto n) GRISTMILL_INLINE { sum[r][n] = Simd::raise(sum[r][n], least); });
    });
  }
  if (high != __builtin_inff()) {
    const Vector most = Simd::broadcast(&high);
    unroll<R>([&](auto r) GRISTMILL_INLINE {
      unroll<N>([&](auto n) GRISTMILL_INLINE { sum[r][n] = Simd::lower(sum[r][n], most); });
    });
  }
}

}  // namespace
}  // namespace gristmill
