#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/avx512vnni/f32_avx512vnni.h"
#include "kernels/window_finish.h"

namespace gristmill {
namespace {

/// One permutation of two registers gathers sixteen floats from a window of 32.
struct WindowsF32 {
  using Element = float;
  using Weight = float;
  using Sum = __m512;
  using Finish = FinishWindowF32<F32x16>;
  static constexpr std::size_t kRows = 16, kDepth = 1, kWindow = 32, kStride = 16, kAtOnce = 16;
  static constexpr std::uint8_t kFirstIndex = 0;

  static Sum total(Sum a, Sum b) { return _mm512_add_ps(a, b); }

  [[gnu::always_inline]] static void add(Sum& sum, const WindowStep<Element, Weight>& step) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(step.index));
    const __mmask16 some = static_cast<__mmask16>(~_mm_movepi8_mask(bytes));
    const __m512i places = _mm512_maskz_cvtepu8_epi32(0xFFFF, bytes);
    const __m512 x = _mm512_maskz_permutex2var_ps(some, _mm512_loadu_ps(step.window), places,
                                                  _mm512_loadu_ps(step.window + 16));
    sum = _mm512_fmadd_ps(x, _mm512_loadu_ps(step.weight), sum);
  }
};

}  // namespace

void install_window_avx512vnni(WindowKernels& slots) { slots.f32 = window_format<WindowsF32>(false, 16); }

}  // namespace gristmill
