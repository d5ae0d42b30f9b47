#pragma once

#include <immintrin.h>

#include <cstddef>

namespace gristmill {
namespace {

/// Sixteen f32, as the templates of the vector levels want them.
struct F32x16 {
  using Vector = __m512;
  static constexpr int kWidth = 16;
  static constexpr __mmask16 kAll = 0xFFFF;
  static __mmask16 first(std::size_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector load(const float* from) { return _mm512_loadu_ps(from); }
  static Vector load_first(const float* from, std::size_t n) { return _mm512_maskz_loadu_ps(first(n), from); }
  static void store(float* to, Vector x) { _mm512_storeu_ps(to, x); }
  static void store_first(float* to, Vector x, std::size_t n) { _mm512_mask_storeu_ps(to, first(n), x); }
  static Vector broadcast(const float* from) { return _mm512_set1_ps(*from); }
  static Vector fma(Vector a, Vector b, Vector sum) { return _mm512_fmadd_ps(a, b, sum); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  /// max and min return their second operand where either is NaN.
  static Vector raise(Vector x, Vector low) { return _mm512_maskz_max_ps(kAll, low, x); }
  static Vector lower(Vector x, Vector high) { return _mm512_maskz_min_ps(kAll, high, x); }
  static Vector clamp(Vector x, Vector low, Vector high) { return lower(raise(x, low), high); }
};

}  // namespace
}  // namespace gristmill
