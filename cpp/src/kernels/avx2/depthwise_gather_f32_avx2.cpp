#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "depthwise_kernels.h"
#include "f32_avx2.h"
#include "kernels/depthwise_gather_f32.h"

namespace gristmill {
namespace {

/// Permutations see the low bits of an index alone, and blending the sign, which the second window's have.
struct WindowPair {
  using Index = __m256i;
  __m256 a, b;

  [[gnu::always_inline]] WindowPair(const float* source, const GatherWindows& windows)
      : a(F32x8::load(source + windows.first[0])), b(F32x8::load_first(source + windows.first[1], 7)) {}
  [[gnu::always_inline]] __m256 pick(__m256i index) const {
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(a, index), _mm256_permutevar8x32_ps(b, index),
                            _mm256_castsi256_ps(index));
  }
  [[gnu::always_inline]] static __m256 keep(__m256 x, __m256i mask) {
    return _mm256_and_ps(x, _mm256_castsi256_ps(mask));
  }
};

}  // namespace

void install_depthwise_gather_f32_avx2(DepthwiseKernels& slots) {
  slots.gather_f32 = {F32x8::kWidth, 1, 1, SIZE_MAX, SIZE_MAX, gather_f32<F32x8, WindowPair>};
}

}  // namespace gristmill
