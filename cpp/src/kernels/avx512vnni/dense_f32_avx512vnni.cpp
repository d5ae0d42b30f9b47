#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "dense_kernels.h"
#include "kernels/avx512vnni/f32_avx512vnni.h"
#include "kernels/dense_f32_tiles.h"

namespace gristmill {
namespace {

/// The eight rows of a block.
struct F32x8 {
  using Vector = __m256;
  static constexpr int kWidth = 8;
  static Vector load(const float* from) { return _mm256_loadu_ps(from); }
  static Vector load_first(const float* from, std::size_t n) {
    return _mm256_maskz_loadu_ps(static_cast<__mmask8>((1u << n) - 1), from);
  }
  static void store(float* to, Vector x) { _mm256_storeu_ps(to, x); }
  static Vector broadcast(const float* from) { return _mm256_broadcast_ss(from); }
  static Vector fma(Vector a, Vector b, Vector sum) { return _mm256_fmadd_ps(a, b, sum); }
};

/// 8 x 48: 24 sums, three vectors of lanes and the broadcasts fit 32 registers, and eleven loads feed 24
/// multiplications.
struct Avx512 {
  using Simd = F32x16;
  using RowSimd = F32x8;
  static constexpr int kRowBlock = 8;
  static constexpr int kLaneVectors = 3;
  static constexpr int kSums = 24;
  static constexpr std::size_t kDepth = 256;
  static constexpr std::size_t kDepthInPlace = 160;
  static constexpr std::size_t kNearDepth = 192, kFarDepth = 256;
  static constexpr bool kCopies = false;
  static constexpr bool kFollowsRows = false;
  static constexpr std::size_t kChunkBytes = 256 * 1024;
  static constexpr bool kBroadcastsMemory = true;

  struct Rows {
    const float* from;
    std::size_t step;
    template <int r>
    __m512 fma(__m512 lanes, __m512 sum) const {
      return _mm512_fmadd_ps(_mm512_set1_ps(from[r * step]), lanes, sum);
    }
  };
};

}  // namespace

void install_dense_f32_avx512vnni(DenseKernels& slots) {
  slots.f32_channels_in_rows = DenseF32<Avx512, ChannelAxis::rows>::kernel();
  slots.f32_channels_in_lanes = DenseF32<Avx512, ChannelAxis::lanes>::kernel();
}

}  // namespace gristmill
