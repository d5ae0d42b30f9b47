#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/avx512vnni/epilogue_avx512vnni.h"
#include "kernels/window_finish.h"
#include "kernels/window_rows.h"

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
  using ManyChannels = ManyChannelsAvx512<1>;
  using Finish = FinishWindowS8<WindowsS8>;
  static constexpr std::size_t kRows = 16, kDepth = 4, kWindow = 128, kStride = 16, kCopies = 4;

  static Vector add(Vector a, Vector b) { return _mm512_add_epi32(a, b); }

  [[gnu::always_inline]] static void add(Sum& sum, const Element* window, const std::uint8_t* index,
                                         const Weight* weight) {
    const __m512i x = _mm512_permutex2var_epi8(_mm512_loadu_si512(window), _mm512_loadu_si512(index),
                                               _mm512_loadu_si512(window + 64));
    sum = _mm512_dpbusd_epi32(sum, x, _mm512_loadu_si512(weight));
  }
};

}  // namespace

void install_window_vbmi_avx512vnni(WindowKernels& slots) { slots.s8 = window_format<WindowsS8>(false, 32); }

}  // namespace gristmill
