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
  static constexpr std::size_t kRows = 16, kDepth = 4, kWindow = 128, kStride = 16, kCopies = 4;
  static constexpr std::uint8_t kFirstIndex = 0;

  static Sum total(Sum a, Sum b) { return _mm512_add_epi32(a, b); }

  [[gnu::always_inline]] static void add(Sum& sum, const WindowStep<Element, Weight>& step) {
    const __m512i x =
        _mm512_permutex2var_epi8(_mm512_loadu_si512(step.window), _mm512_loadu_si512(step.index),
                                 _mm512_loadu_si512(step.window + 64));
    sum = _mm512_dpbusd_epi32(sum, x, _mm512_loadu_si512(step.weight));
  }
};

}  // namespace

void install_window_vbmi_avx512vnni(WindowKernels& slots) { slots.s8 = window_format<WindowsS8>(false, 32); }

}  // namespace gristmill
