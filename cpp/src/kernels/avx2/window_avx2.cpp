#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/avx2/epilogue_avx2.h"
#include "kernels/avx2/f32_avx2.h"
#include "kernels/window_finish.h"
#include "kernels/window_rows.h"

namespace gristmill {
namespace {

/// The window is four tables of sixteen bytes; a byte shuffle yields zero where an index lies in another one.
struct WindowsS8 {
  using Element = std::uint8_t;
  using Weight = std::int8_t;
  using Sum = __m256i;
  using Vector = __m256i;
  using Epilogue = EpilogueAvx2;
  using ManyChannels = ManyChannelsAvx2<1>;
  using Finish = FinishWindowS8<WindowsS8>;
  static constexpr std::size_t kRows = 8, kDepth = 4, kWindow = 64, kStride = 16, kCopies = 1;

  static Vector add(Vector a, Vector b) { return _mm256_add_epi32(a, b); }

  [[gnu::always_inline]] static void add(Sum& sum, const Element* window, const std::uint8_t* index,
                                         const Weight* weight) {
    const __m256i places = load(index);
    __m256i x = _mm256_setzero_si256();
    unroll<4>([&](auto i) GRISTMILL_INLINE {
      const __m256i table =
          _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(window + 16 * i)));
      // 0 to 15 become 0x70 to 0x7F, which select; all others keep their highest bit or gain it.
      const __m256i moved = _mm256_sub_epi8(places, _mm256_set1_epi8(static_cast<char>(16 * i)));
      const __m256i selector = _mm256_adds_epu8(moved, _mm256_set1_epi8(0x70));
      x = _mm256_or_si256(x, _mm256_shuffle_epi8(table, selector));
    });
    const __m256i pairs = _mm256_maddubs_epi16(x, load(weight));  // exact: the packer chose safe pairs
    sum = add(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

 private:
  static __m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
};

struct WindowsF32 {
  using Element = float;
  using Weight = float;
  using Sum = __m256;
  using Finish = FinishWindowF32<F32x8>;
  static constexpr std::size_t kRows = 8, kDepth = 1, kWindow = 16, kStride = 8, kCopies = 1;

  [[gnu::always_inline]] static void add(Sum& sum, const Element* window, const std::uint8_t* index,
                                         const Weight* weight) {
    const __m256i places = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(index)));
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(window), places);
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(window + 8), places);
    const __m256 x = _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(places, 28)));
    const __m256 none = _mm256_castsi256_ps(_mm256_srai_epi32(places, 31));
    sum = _mm256_fmadd_ps(_mm256_andnot_ps(none, x), _mm256_loadu_ps(weight), sum);
  }
};

}  // namespace

void install_window_avx2(WindowKernels& slots) {
  slots.s8 = window_format<WindowsS8>(true, 8);
  slots.f32 = window_format<WindowsF32>(false, 8);
}

}  // namespace gristmill
