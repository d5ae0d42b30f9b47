#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/avx2/epilogue_avx2.h"
#include "kernels/avx2/f32_avx2.h"
#include "kernels/avx512vnni/epilogue_avx512vnni.h"
#include "kernels/avx512vnni/f32_avx512vnni.h"
#include "kernels/sparse_formats.h"

namespace gristmill {
namespace {

/// Half a lane block of Avx512.
struct Avx512Half {
  using Vector = __m256i;
  using Epilogue = EpilogueAvx2;
  using OneChannel = OneChannelAvx2;
  using Bytes = UnpackedBytesAvx2;
  using Simd = F32x8;
  static constexpr std::size_t kWidth = 8, kLaneBlock = 64;

  static Vector load(const std::uint8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void store(std::uint8_t* to, Vector v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v); }
  static Vector add(Vector a, Vector b) { return _mm256_add_epi32(a, b); }
  static Vector broadcast(const std::int8_t (&weight)[4]) {
    std::int32_t all;
    __builtin_memcpy(&all, weight, 4);
    return _mm256_set1_epi32(all);
  }
  static Vector multiply_add(Vector sum, Vector x, Vector w) { return _mm256_dpbusd_epi32(sum, x, w); }
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
  static Vector packed_in_order(Vector bytes) {
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
};

/// Four lanes of Avx512.
struct Avx512Few {
  using Vector = __m128i;
  using Wide = Avx512Half;
  static constexpr std::size_t kWidth = 4, kLaneBlock = 64;

  static Vector load(const std::uint8_t* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  static Vector broadcast(const std::int8_t (&weight)[4]) {
    std::int32_t all;
    __builtin_memcpy(&all, weight, 4);
    return _mm_set1_epi32(all);
  }
  static Vector add(Vector a, Vector b) { return _mm_add_epi32(a, b); }
  static Vector multiply_add(Vector sum, Vector x, Vector w) { return _mm_dpbusd_epi32(sum, x, w); }
  static Vector low8(Vector a, Vector b) { return _mm_unpacklo_epi8(a, b); }
  static Vector low16(Vector a, Vector b) { return _mm_unpacklo_epi16(a, b); }
  static __m256i widen(Vector v) { return _mm256_zextsi128_si256(v); }
};

struct Avx512 {
  using Vector = __m512i;
  using Epilogue = EpilogueAvx512;
  using OneChannel = OneChannelAvx512;
  using Bytes = UnpackedBytesAvx512;
  using Simd = F32x16;
  using Half = Avx512Half;
  using Few = Avx512Few;
  static constexpr std::size_t kWidth = 16, kLaneBlock = 64;
  static constexpr bool kHasHalf = true;
  static constexpr std::size_t kByteRows = 640, kFloatRows = 128;
  static constexpr int kBlockSets = 2;

  static Vector load(const std::uint8_t* from) { return _mm512_loadu_si512(from); }
  static void store(std::uint8_t* to, Vector v) { _mm512_storeu_si512(to, v); }
  static Vector add(Vector a, Vector b) { return _mm512_add_epi32(a, b); }
  static Vector broadcast(const std::int8_t (&weight)[4]) {
    std::int32_t all;
    __builtin_memcpy(&all, weight, 4);
    return _mm512_set1_epi32(all);
  }
  static Vector multiply_add(Vector sum, Vector x, Vector w) { return _mm512_dpbusd_epi32(sum, x, w); }
  static Vector low8(Vector a, Vector b) { return _mm512_unpacklo_epi8(a, b); }
  static Vector high8(Vector a, Vector b) { return _mm512_unpackhi_epi8(a, b); }
  static Vector low16(Vector a, Vector b) { return _mm512_unpacklo_epi16(a, b); }
  static Vector high16(Vector a, Vector b) { return _mm512_unpackhi_epi16(a, b); }
  /// The 128-bit parts of the four sums, transposed.
  static void in_order(const Vector (&sum)[4], Vector (&lanes)[4]) {
    const Vector low01 = _mm512_shuffle_i32x4(sum[0], sum[1], 0x44);
    const Vector low23 = _mm512_shuffle_i32x4(sum[2], sum[3], 0x44);
    const Vector high01 = _mm512_shuffle_i32x4(sum[0], sum[1], 0xEE);
    const Vector high23 = _mm512_shuffle_i32x4(sum[2], sum[3], 0xEE);
    lanes[0] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    lanes[1] = _mm512_shuffle_i32x4(low01, low23, 0xDD);
    lanes[2] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    lanes[3] = _mm512_shuffle_i32x4(high01, high23, 0xDD);
  }
  static Vector packed_in_order(Vector bytes) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_maskz_permutexvar_epi32(0xFFFF, order, bytes);
  }
};

}  // namespace

void install_sparse_avx512vnni(SparseKernels& slots) {
  slots.quads = sparse_format<Quads<Avx512>>(false, Quads<Avx512>::multiply);
  slots.blocks = sparse_format<Blocks<Avx512>>(false, Blocks<Avx512>::multiply);
  slots.singles = sparse_format<Singles<Avx512>>(false, Singles<Avx512>::multiply);
}

}  // namespace gristmill
