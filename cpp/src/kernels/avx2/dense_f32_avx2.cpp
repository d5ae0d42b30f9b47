#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "dense_kernels.h"
#include "kernels/dense_f32_tiles.h"

namespace gristmill {
namespace {

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
  static Vector clamp(Vector x, Vector low, Vector high) {
    return _mm256_min_ps(high, _mm256_max_ps(low, x));
  }

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

/// 6 x 16: twelve sums, two vectors of lanes and one broadcast fill the sixteen registers but one, and eight
/// loads feed twelve multiplications.
struct Avx2 {
  using Simd = F32x8;
  using RowSimd = F32x8;
  static constexpr int kRowBlock = 6;
  static constexpr int kLaneVectors = 2;
  static constexpr int kSums = 12;
  static constexpr std::size_t kDepth = 256;

  struct Rows {
    const float* from;
    explicit Rows(const float* pointer) : from(pointer) {}
    template <int r>
    __m256 fma(__m256 lanes, __m256 sum) const {
      return _mm256_fmadd_ps(_mm256_broadcast_ss(from + r), lanes, sum);
    }
  };
};

}  // namespace

void install_dense_f32_avx2(DenseKernels& slots) {
  slots.f32_row_block = Avx2::kRowBlock;
  slots.f32_lane_block = Avx2::kLaneVectors * F32x8::kWidth;
  slots.f32_channels_in_rows = DenseF32<Avx2, ChannelAxis::rows>::multiply;
  slots.f32_channels_in_lanes = DenseF32<Avx2, ChannelAxis::lanes>::multiply;
}

}  // namespace gristmill
