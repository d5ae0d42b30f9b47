#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/avx2/epilogue_avx2.h"
#include "kernels/avx2/f32_avx2.h"
#include "kernels/sparse_formats.h"

namespace gristmill {
namespace {

struct Avx2Few;

struct Avx2 {
  using Vector = __m256i;
  using Epilogue = EpilogueAvx2;
  using OneChannel = OneChannelAvx2;
  using Bytes = UnpackedBytesAvx2;
  using Simd = F32x8;
  using Few = Avx2Few;
  static constexpr std::size_t kWidth = 8, kLaneBlock = 32;
  static constexpr bool kHasHalf = false, kHasWords = true, kHasQuadLoop = false;
  static constexpr bool kStoresParts = false, kInterleaved = false;
  static constexpr std::size_t kByteRows = 832, kFloatRows = 96;
  /// Of sixteen registers, and such that a plane of 7 * 2^n by 7 * 2^n pixels fills its lane blocks nearly or
  /// wholly.
  static constexpr int kFloatVectors = 14;
  template <class Of>
  using PackedAs = Of;

  static Vector load(const std::uint8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void store(std::uint8_t* to, Vector v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v); }
  static void store_half(std::uint8_t* to, Vector v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(v));
  }
  static Vector add(Vector a, Vector b) { return _mm256_add_epi32(a, b); }
  static Vector broadcast(std::int32_t all) { return _mm256_set1_epi32(all); }
  /// Exact: the packer has seen to it that no pair can saturate.
  static Vector multiply_add(Vector sum, Vector x, Vector w) {
    const Vector pairs = _mm256_maddubs_epi16(x, w);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static Vector low8(Vector a, Vector b) { return _mm256_unpacklo_epi8(a, b); }
  static Vector high8(Vector a, Vector b) { return _mm256_unpackhi_epi8(a, b); }
  static Vector low16(Vector a, Vector b) { return _mm256_unpacklo_epi16(a, b); }
  static Vector high16(Vector a, Vector b) { return _mm256_unpackhi_epi16(a, b); }
  static void in_order(const Vector (&sum)[4], Vector (&lanes)[4]) {
    lanes[0] = _mm256_permute2x128_si256(sum[0], sum[1], 0x20);
    lanes[1] = _mm256_permute2x128_si256(sum[2], sum[3], 0x20);
    lanes[2] = _mm256_permute2x128_si256(sum[0], sum[1], 0x31);
    lanes[3] = _mm256_permute2x128_si256(sum[2], sum[3], 0x31);
  }
  static Vector either(Vector a, Vector b) { return _mm256_or_si256(a, b); }
  static void in_order(const Vector (&sum)[2], Vector (&lanes)[2]) {
    lanes[0] = _mm256_permute2x128_si256(sum[0], sum[1], 0x20);
    lanes[1] = _mm256_permute2x128_si256(sum[0], sum[1], 0x31);
  }
  static Vector packed_in_order(Vector bytes) {
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
};

/// Four lanes of Avx2.
struct Avx2Few {
  using Vector = __m128i;
  using Wide = Avx2;
  static constexpr bool kInterleaved = false;
  static constexpr std::size_t kWidth = 4, kLaneBlock = Avx2::kLaneBlock;

  static Vector load(const std::uint8_t* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  static Vector broadcast(std::int32_t all) { return _mm_set1_epi32(all); }
  static Vector add(Vector a, Vector b) { return _mm_add_epi32(a, b); }
  /// As exact as Avx2's.
  static Vector multiply_add(Vector sum, Vector x, Vector w) {
    return _mm_add_epi32(sum, _mm_madd_epi16(_mm_maddubs_epi16(x, w), _mm_set1_epi16(1)));
  }
  static Vector low8(Vector a, Vector b) { return _mm_unpacklo_epi8(a, b); }
  static Vector low16(Vector a, Vector b) { return _mm_unpacklo_epi16(a, b); }
  static __m256i widen(Vector v) { return _mm256_zextsi128_si256(v); }
};

}  // namespace

void install_sparse_avx2(SparseKernels& slots) {
  slots.quads = sparse_format<Quads<Avx2>>(true, Quads<Avx2>::multiply);
  slots.quads.half_in_words = true;
  slots.blocks = sparse_format<Blocks<Avx2>>(true, Blocks<Avx2>::multiply);
  slots.singles = sparse_format<Singles<Avx2>>(false, Singles<Avx2>::multiply);
}

}  // namespace gristmill
