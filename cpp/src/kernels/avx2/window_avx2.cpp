#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/avx2/epilogue_avx2.h"
#include "kernels/avx2/f32_avx2.h"
#include "kernels/window_finish.h"

namespace gristmill {
namespace {

/// The window is two tables of sixteen bytes. A byte shuffle yields zero where the highest bit of an index is
/// set: indices begin at 0x70, so that those into the second table have it, and XOR exchanges the tables.
///
/// Products of pairs fill sixteen bits, one for each row; those of two steps are added as they are widened.
struct WindowsS8 {
  using Element = std::uint8_t;
  using Weight = std::int8_t;
  using Vector = __m256i;
  using Epilogue = EpilogueAvx2;
  using ManyChannels = ManyChannelsAvx2<2 * kFinished>;
  using Finish = FinishWindowS8<WindowsS8>;
  static constexpr std::size_t kRows = 16, kDepth = 2, kWindow = 32, kStride = 1, kAtOnce = 4;
  static constexpr std::uint8_t kFirstIndex = 0x70;

  /// Until total() puts them in order, those of rows 0-3 and 8-11, and of rows 4-7 and 12-15.
  struct Sum {
    Vector rows[2];
  };

  [[gnu::always_inline]] static Sum total(const Sum& a, const Sum& b) {
    const Vector first = _mm256_add_epi32(a.rows[0], b.rows[0]),
                 second = _mm256_add_epi32(a.rows[1], b.rows[1]);
    return {{_mm256_permute2x128_si256(first, second, 0x20), _mm256_permute2x128_si256(first, second, 0x31)}};
  }

  [[gnu::always_inline]] static void add(Sum& sum, const WindowStep<Element, Weight>& step) {
    add_pairs(sum, pairs(step), _mm256_setzero_si256());
  }
  [[gnu::always_inline]] static void add_two(Sum& sum, const WindowStep<Element, Weight>& a,
                                             const WindowStep<Element, Weight>& b) {
    add_pairs(sum, pairs(a), pairs(b));
  }

 private:
  [[gnu::always_inline]] static Vector pairs(const WindowStep<Element, Weight>& step) {
    const Vector places = load(step.index), exchanged = _mm256_xor_si256(places, _mm256_set1_epi8(-128));
    const Vector x = _mm256_or_si256(_mm256_shuffle_epi8(table(step.window), places),
                                     _mm256_shuffle_epi8(table(step.window + 16), exchanged));
    return _mm256_maddubs_epi16(x, load(step.weight));  // exact: the packer chose safe pairs
  }
  [[gnu::always_inline]] static void add_pairs(Sum& sum, Vector a, Vector b) {
    const Vector ones = _mm256_set1_epi16(1), low = _mm256_unpacklo_epi16(a, b),
                 high = _mm256_unpackhi_epi16(a, b);
    sum.rows[0] = _mm256_add_epi32(sum.rows[0], _mm256_madd_epi16(low, ones));
    sum.rows[1] = _mm256_add_epi32(sum.rows[1], _mm256_madd_epi16(high, ones));
  }
  static Vector load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
  static Vector table(const Element* from) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
};

struct WindowsF32 {
  using Element = float;
  using Weight = float;
  using Sum = __m256;
  using Finish = FinishWindowF32<F32x8>;
  static constexpr std::size_t kRows = 8, kDepth = 1, kWindow = 16, kStride = 8, kAtOnce = 4;
  static constexpr std::uint8_t kFirstIndex = 0;

  static Sum total(Sum a, Sum b) { return _mm256_add_ps(a, b); }

  [[gnu::always_inline]] static void add(Sum& sum, const WindowStep<Element, Weight>& step) {
    const __m256i places =
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(step.index)));
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(step.window), places);
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(step.window + 8), places);
    const __m256 x = _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(places, 28)));
    const __m256 none = _mm256_castsi256_ps(_mm256_srai_epi32(places, 31));
    sum = _mm256_fmadd_ps(_mm256_andnot_ps(none, x), _mm256_loadu_ps(step.weight), sum);
  }
};

}  // namespace

void install_window_avx2(WindowKernels& slots) {
  slots.s8 = window_format<WindowsS8>(true, 9);
  slots.f32 = window_format<WindowsF32>(false, 2);
}

}  // namespace gristmill
