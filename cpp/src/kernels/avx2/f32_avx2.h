#pragma once

#include <immintrin.h>

#include <cstddef>

namespace gristmill {
namespace {

/// Eight f32, as the templates of the vector levels want them.
struct F32x8 {
  using Vector = __m256;
  static constexpr int kWidth = 8;
  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Vector x) { _mm256_storeu_ps(to, x); }
  static Vector broadcast(const float* from) { return _mm256_broadcast_ss(from); }
  static Vector fma(Vector a, Vector b, Vector sum) { return _mm256_fmadd_ps(a, b, sum); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  /// max and min return their second operand where either is NaN.
  static Vector raise(Vector x, Vector low) { return _mm256_max_ps(low, x); }
  static Vector lower(Vector x, Vector high) { return _mm256_min_ps(high, x); }
  static Vector clamp(Vector x, Vector low, Vector high) { return lower(raise(x, low), high); }

  static Vector load_first(const float* from, std::size_t n) {
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(from, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), index));
  }
  /// In halves: a masked store is many times slower on AMD.
  static void store_first(float* to, Vector x, std::size_t n) {
    __m128 part = _mm256_castps256_ps128(x);
    if (n & 4) {
      _mm_storeu_ps(to, part);
      part = _mm256_extractf128_ps(x, 1);
      to += 4;
    }
    if (n & 2) {
      _mm_storel_pi(reinterpret_cast<__m64*>(to), part);
      part = _mm_movehl_ps(part, part);
      to += 2;
    }
    if (n & 1) _mm_store_ss(to, part);
  }
};

}  // namespace
}  // namespace gristmill
