#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "depthwise_kernels.h"
#include "f32_avx512vnni.h"
#include "kernels/depthwise_gather_f32.h"

namespace gristmill {
namespace {

struct WindowPair {
  using Index = __m512i;
  __m512 a, b;

  [[gnu::always_inline]] WindowPair(const float* source, const GatherWindows& windows)
      : a(F32x16::load(source + windows.first[0])), b(F32x16::load_first(source + windows.first[1], 15)) {}
  [[gnu::always_inline]] __m512 pick(__m512i index) const { return _mm512_permutex2var_ps(a, index, b); }
  [[gnu::always_inline]] static __m512 keep(__m512 x, __m512i mask) {
    return _mm512_and_ps(x, _mm512_castsi512_ps(mask));
  }
};

}  // namespace

void install_depthwise_gather_f32_avx512vnni(DepthwiseKernels& slots) {
  slots.gather_f32 = {F32x16::kWidth, 1, 1, SIZE_MAX, SIZE_MAX, gather_f32<F32x16, WindowPair>};
}

}  // namespace gristmill
