#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/avx512vnni/epilogue_avx512vnni.h"
#include "kernels/window_finish.h"

namespace gristmill {
namespace {

/// One permutation of two registers gathers 64 bytes from a window of 128. Only VBMI has it, so this file
/// alone is compiled for it.
struct WindowsS8 {
  using Element = std::uint8_t;
  using Weight = std::int8_t;
  using Sum = __m512i;
  using Vector = __m512i;
  using Epilogue = EpilogueAvx512;
  using ManyChannels = ManyChannelsAvx512<kFinished>;
  using Finish = FinishWindowS8<WindowsS8>;
  static constexpr std::size_t kRows = 16, kDepth = 4, kWindow = 128, kStride = 64, kAtOnce = 16;
  static constexpr std::uint8_t kFirstIndex = 0;

  static Sum total(Sum a, Sum b) { return _mm512_add_epi32(a, b); }

  [[gnu::always_inline]] static void add(Sum& sum, const WindowStep<Element, Weight>& step) {
    const __m512i x =
        _mm512_permutex2var_epi8(_mm512_loadu_si512(step.window), _mm512_loadu_si512(step.index),
                                 _mm512_loadu_si512(step.window + 64));
    sum = _mm512_dpbusd_epi32(sum, x, _mm512_loadu_si512(step.weight));
  }
};

/// Four permutations of one register each, chosen from by the two highest bits of an index.
struct WideWindowsS8 : WindowsS8 {
  using Finish = FinishWindowS8<WideWindowsS8>;
  static constexpr std::size_t kWindow = 256, kStride = 64, kAtOnce = 1;

  [[gnu::always_inline]] static void add(Sum& sum, const WindowStep<Element, Weight>& step) {
    const __m512i places = _mm512_loadu_si512(step.index);
    const __mmask64 odd = _mm512_movepi8_mask(_mm512_add_epi8(places, places)),
                    high = _mm512_movepi8_mask(places);
    const auto part = [&](int i) GRISTMILL_INLINE { return _mm512_loadu_si512(step.window + 64 * i); };
    __m512i x = _mm512_permutexvar_epi8(places, part(0));
    x = _mm512_mask_permutexvar_epi8(x, odd, places, part(1));
    x = _mm512_mask_permutexvar_epi8(x, high, places, part(2));
    x = _mm512_mask_permutexvar_epi8(x, high & odd, places, part(3));
    sum = _mm512_dpbusd_epi32(sum, x, _mm512_loadu_si512(step.weight));
  }
};

}  // namespace

void install_window_vbmi_avx512vnni(WindowKernels& slots) {
  slots.s8 = window_format<WindowsS8>(false, 48);
  slots.spare_s8_wide = window_format<WideWindowsS8>(false, 1);
}

void install_window_intel_avx512vnni(WindowKernels& slots) { slots.s8_wide = slots.spare_s8_wide; }

}  // namespace gristmill
