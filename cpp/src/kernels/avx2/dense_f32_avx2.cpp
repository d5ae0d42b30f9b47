#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "dense_kernels.h"
#include "kernels/avx2/f32_avx2.h"
#include "kernels/dense_f32_tiles.h"

namespace gristmill {
namespace {

/// 6 x 16: twelve sums, two vectors of lanes and one broadcast fill the sixteen registers but one, and eight
/// loads feed twelve multiplications.
struct Avx2 {
  using Simd = F32x8;
  using RowSimd = F32x8;
  static constexpr int kRowBlock = 6;
  static constexpr int kLaneVectors = 2;
  static constexpr int kSums = 12;
  static constexpr std::size_t kDepth = 1152;
  static constexpr std::size_t kNearDepth = kDepth, kFarDepth = kDepth;
  static constexpr bool kCopies = true;
  static constexpr bool kFollowsRows = true;
  static constexpr std::size_t kChunkBytes = 128 * 1024;
  static constexpr bool kBroadcastsMemory = true;

  struct Rows {
    const float* from;
    std::size_t step;
    template <int r>
    __m256 fma(__m256 lanes, __m256 sum) const {
      return _mm256_fmadd_ps(_mm256_broadcast_ss(from + r * step), lanes, sum);
    }
  };
};

}  // namespace

void install_dense_f32_avx2(DenseKernels& slots) {
  slots.f32_channels_in_rows = DenseF32<Avx2, ChannelAxis::rows>::kernel();
  slots.f32_channels_in_rows.sliding_k = 256;
  slots.f32_channels_in_lanes = DenseF32<Avx2, ChannelAxis::lanes>::kernel();
}

}  // namespace gristmill
