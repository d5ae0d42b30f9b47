#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "dense_kernels.h"
#include "kernels/avx2/epilogue_avx2.h"
#include "kernels/dense_s8_tiles.h"

namespace gristmill {
namespace {

/// vpmaddubsw multiplies u8 by s8 and adds neighbours into s16, which saturates beyond 32767; vpmaddwd by
/// ones adds neighbours again, into s32.
__m256i add_pairs(__m256i sum, __m256i pairs) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

struct RowBytesAvx2 : UnpackedBytesAvx2 {
  using UnpackedBytesAvx2::UnpackedBytesAvx2;

  [[gnu::always_inline]] void store(const __m256i* a, float scale_a, const __m256i* b, float scale_b,
                                    std::uint8_t* out, std::size_t stride) const {
    const __m256i rows = two_rows(a, _mm256_set1_ps(scale_a), b, _mm256_set1_ps(scale_b));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(rows));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + stride), _mm256_extracti128_si256(rows, 1));
  }

  /// 32 sums of one row.
  [[gnu::always_inline]] void store_row(const __m256i* sums, float scale, std::uint8_t* out) const {
    const __m256i row = one_row(sums, _mm256_set1_ps(scale));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), row);
  }
};

/// Four rows x 16 lanes: eight sums, two vectors of activations in two forms and a broadcast, of sixteen
/// registers.
struct Avx2 {
  using Vector = __m256i;
  using Bytes = __m256i;
  using Epilogue = EpilogueAvx2;
  using OneChannel = OneChannelAvx2;
  using RowBytes = RowBytesAvx2;
  template <int N>
  using ManyChannels = ManyChannelsAvx2<N>;
  static constexpr int kWidth = 8;
  static constexpr std::size_t kRowBlock = 4;
  template <ChannelAxis axis>
  static constexpr int kLaneVectors = axis == ChannelAxis::rows ? 2 : 4;
  static constexpr int kMostSingles = 1;
  static constexpr bool kPairs = true, kFetchesApart = true;
  static constexpr int kTileRows = 2, kTileSums = 8;

  static __m256i zero() { return _mm256_setzero_si256(); }
  static __m256i load(const std::int32_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static __m256i add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
  static __m256i load_all(const std::int32_t* from) { return _mm256_set1_epi32(*from); }
  static __m256i load_bytes(const std::uint8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static __m256i load_rows(const std::uint8_t* from) {
    return _mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static __m256i broadcast_group(const std::uint8_t* from) {
    std::int32_t group;
    __builtin_memcpy(&group, from, 4);
    return _mm256_set1_epi32(group);
  }
};

/// u8 activations, weights no sum of which can saturate.
struct UnsaturatedAvx2 : Avx2 {
  static constexpr std::uint8_t kFlip = 0;
  static constexpr bool kOffset = false;
  static constexpr bool kCouples = true;

  static __m256i multiply_add_two(const __m256i (&x)[2], const __m256i (&weights)[2], __m256i sum) {
    return add_pairs(sum, _mm256_add_epi16(_mm256_maddubs_epi16(x[0], weights[0]),
                                           _mm256_maddubs_epi16(x[1], weights[1])));
  }
  static __m256i gather_groups(const std::uint8_t* from, const std::uint32_t* group, std::size_t step) {
    const auto at = [&](int row) {
      std::int32_t bytes;
      __builtin_memcpy(&bytes, from + group[row] * step, 4);
      return bytes;
    };
    return _mm256_zextsi128_si256(_mm_setr_epi32(at(0), at(1), at(2), at(3)));
  }

  struct Activation {
    __m256i bytes;
    Activation() = default;
    explicit Activation(__m256i x) : bytes(x) {}
    __m256i multiply_add(__m256i weights, __m256i sum) const {
      return add_pairs(sum, _mm256_maddubs_epi16(bytes, weights));
    }
  };
};

/// s8 activations x and any weights w, exactly. With the mask m = x < 0 ? -1 : 0,
///
///     x w = |x| (w ^ m) + |x| (m & 1)
///
/// for w ^ -1 is -w - 1. |x| <= 128 is the unsigned factor and -128 <= w ^ m <= 127 the signed one, and a
/// pair of products is at least 2 * 128 * -128 = -32768 and at most 2 * 127 * 127 or 2 * 128 * 126: it fits
/// s16. What is left, the sum of |x| over negative x, is the same for all weights: sums start there. (vpsignb
/// would need no offset, but runs on the ports of the multiplications.)
struct ExactAvx2 : Avx2 {
  static constexpr std::uint8_t kFlip = 0x80;
  static constexpr bool kOffset = true;
  static constexpr bool kCouples = false;

  struct Activation {
    __m256i magnitude, negative;
    Activation() = default;
    explicit Activation(__m256i x)
        : magnitude(_mm256_abs_epi8(x)), negative(_mm256_cmpgt_epi8(_mm256_setzero_si256(), x)) {}
    __m256i multiply_add(__m256i weights, __m256i sum) const {
      return add_pairs(sum, _mm256_maddubs_epi16(magnitude, _mm256_xor_si256(weights, negative)));
    }
  };

  /// sum + |x| over the negative bytes of each group of four.
  static __m256i add_negatives(__m256i sum, __m256i x) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_min_epi8(x, zero()));
    return _mm256_sub_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  static void lane_offsets(const std::uint8_t* lane, std::size_t groups, std::int32_t* offsets) {
    __m256i low = zero(), high = zero();
    for (; groups > 0; --groups, lane += 64) {
      low = add_negatives(low, load_bytes(lane));
      high = add_negatives(high, load_bytes(lane + 32));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(offsets), low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(offsets + 8), high);
  }

  static std::int32_t row_offset(const std::uint8_t* row, std::size_t groups) {
    __m256i sum = zero();
    for (; groups >= 8; groups -= 8, row += 32) sum = add_negatives(sum, load_bytes(row));
    for (; groups > 0; --groups, row += 4)
      sum = add_negatives(sum, _mm256_zextsi128_si256(_mm_loadu_si32(row)));
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    four = _mm_hadd_epi32(four, four);
    return _mm_cvtsi128_si32(_mm_hadd_epi32(four, four));
  }
};

}  // namespace

void install_dense_s8_avx2(DenseKernels& slots) {
  slots.general = dense_s8_variant<ExactAvx2>();
  slots.no_saturation = dense_s8_variant<UnsaturatedAvx2>();
}

}  // namespace gristmill
