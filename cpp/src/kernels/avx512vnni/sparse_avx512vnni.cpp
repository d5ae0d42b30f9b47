#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/avx2/epilogue_avx2.h"
#include "kernels/avx2/f32_avx2.h"
#include "kernels/avx512vnni/epilogue_avx512vnni.h"
#include "kernels/avx512vnni/f32_avx512vnni.h"
#include "kernels/sparse_formats.h"
#include "kernels/sparse_fours.h"

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
  static constexpr bool kHasQuadLoop = false, kStoresParts = true, kInterleaved = true;

  static Vector load(const std::uint8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void store(std::uint8_t* to, Vector v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v); }
  static void store_first(std::uint8_t* to, Vector v, std::size_t count) {
    _mm256_mask_storeu_epi8(to, static_cast<__mmask32>(first_bits(count)), v);
  }
  static Vector add(Vector a, Vector b) { return _mm256_add_epi32(a, b); }
  static Vector broadcast(std::int32_t all) { return _mm256_set1_epi32(all); }
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
  static constexpr bool kInterleaved = true;
  static constexpr std::size_t kWidth = 4, kLaneBlock = 64;

  static Vector load(const std::uint8_t* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  static Vector broadcast(std::int32_t all) { return _mm_set1_epi32(all); }
  static Vector add(Vector a, Vector b) { return _mm_add_epi32(a, b); }
  static Vector multiply_add(Vector sum, Vector x, Vector w) { return _mm_dpbusd_epi32(sum, x, w); }
  static Vector low8(Vector a, Vector b) { return _mm_unpacklo_epi8(a, b); }
  static Vector low16(Vector a, Vector b) { return _mm_unpacklo_epi16(a, b); }
  static __m256i widen(Vector v) { return _mm256_zextsi128_si256(v); }
};

/// Loads the panel rows at the offsets in o1 and interleaves them. In assembler, for compilers order these
/// instructions as they like, and keep numbers in vector registers to get a fifth of general use. Four vector
/// units take three cycles for the shuffles and multiply-adds of a quad; loads, of which the offsets are but
/// one therefore, take as long.
#define GRISTMILL_INTERLEAVE_QUAD             \
  "movzwl %w[o1], %k[o0]\n"                   \
  "vmovdqu64 (%[panel], %[o0], 8), %%zmm16\n" \
  "movl %k[o1], %k[o0]\n"                     \
  "shrq $32, %[o1]\n"                         \
  "shrl $16, %k[o0]\n"                        \
  "vmovdqu64 (%[panel], %[o0], 8), %%zmm17\n" \
  "movzwl %w[o1], %k[o0]\n"                   \
  "shrl $16, %k[o1]\n"                        \
  "vmovdqu64 (%[panel], %[o0], 8), %%zmm18\n" \
  "vmovdqu64 (%[panel], %[o1], 8), %%zmm19\n" \
  "vpunpcklbw %%zmm17, %%zmm16, %%zmm20\n"    \
  "vpunpcklbw %%zmm19, %%zmm18, %%zmm21\n"    \
  "vpunpckhbw %%zmm17, %%zmm16, %%zmm22\n"    \
  "vpunpckhbw %%zmm19, %%zmm18, %%zmm23\n"    \
  "vpunpcklwd %%zmm21, %%zmm20, %%zmm16\n"    \
  "vpunpckhwd %%zmm21, %%zmm20, %%zmm17\n"    \
  "vpunpcklwd %%zmm23, %%zmm22, %%zmm18\n"    \
  "vpunpckhwd %%zmm23, %%zmm22, %%zmm19\n"

using Memory = const char[std::size_t{1} << 30];  // whatever a loop may read
static_assert(sizeof(SparseQuad) == 12 && kOffsetUnit == 8);

/// Quads of two rows in turns, one at least of each: their multiply-adds do not wait for each other.
template <bool far>
[[gnu::always_inline]] inline void add_quad_pair(__m512i (&a)[4], __m512i (&b)[4], const SparseQuad* quad,
                                                 const SparseQuad* end, const std::uint8_t* panel) {
  std::size_t o0, o1;
  __m512i a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], b0 = b[0], b1 = b[1], b2 = b[2], b3 = b[3];
  asm(R"(
    .p2align 6
  1:
    movq (%[quad]), %[o1]
    vpbroadcastd 8(%[quad]), %%zmm24
  )" GRISTMILL_INTERLEAVE_QUAD R"(
    vpdpbusd %%zmm24, %%zmm16, %[a0]
    vpdpbusd %%zmm24, %%zmm17, %[a1]
    vpdpbusd %%zmm24, %%zmm18, %[a2]
    vpdpbusd %%zmm24, %%zmm19, %[a3]
    movq 12(%[quad]), %[o1]
    vpbroadcastd 20(%[quad]), %%zmm24
    .if %c[far]
    prefetcht0 2560(%[quad])
    .endif
  )" GRISTMILL_INTERLEAVE_QUAD R"(
    vpdpbusd %%zmm24, %%zmm16, %[b0]
    vpdpbusd %%zmm24, %%zmm17, %[b1]
    vpdpbusd %%zmm24, %%zmm18, %[b2]
    vpdpbusd %%zmm24, %%zmm19, %[b3]
    addq $24, %[quad]
    cmpq %[end], %[quad]
    jne 1b
  )"
      : [quad] "+r"(quad), [a0] "+v"(a0), [a1] "+v"(a1), [a2] "+v"(a2), [a3] "+v"(a3), [b0] "+v"(b0),
        [b1] "+v"(b1), [b2] "+v"(b2), [b3] "+v"(b3), [o0] "=&r"(o0), [o1] "=&r"(o1)
      : [end] "r"(end), [panel] "r"(panel), [far] "i"(far), "m"(*reinterpret_cast<Memory*>(quad)),
        "m"(*reinterpret_cast<Memory*>(panel))
      : "cc", "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21", "zmm22", "zmm23", "zmm24");
  a[0] = a0, a[1] = a1, a[2] = a2, a[3] = a3;
  b[0] = b0, b[1] = b1, b[2] = b2, b[3] = b3;
}

/// At least one spread quad, in six cycles of Golden Cove: sums in pairs[0] take rows 0 and 1, those in
/// pairs[1] rows 2 and 3, so that no multiply-add waits for another one of the same quad.
[[gnu::always_inline]] inline void add_spread_run(__m512i (&pairs)[2][4], const SparseSpreadQuad* quad,
                                                  const SparseSpreadQuad* end, const std::uint8_t* panel) {
  static_assert(sizeof(SparseSpreadQuad) == 18 && kOffsetUnit == 8);
  std::size_t o0, o1;
  __m512i x0, x1, high, even, odd;
  asm(R"(
    .p2align 6
  1:
    movl (%[quad]), %k[o1]
    vpbroadcastd 10(%[quad]), %[even]
    movzwl %w[o1], %k[o0]
    vpbroadcastd 8(%[quad]), %[odd]
    shrl $16, %k[o1]
    vmovdqu64 (%[panel], %[o0], 8), %[x0]
    vmovdqu64 (%[panel], %[o1], 8), %[x1]
    vpunpckhbw %[x1], %[x0], %[high]
    vpunpcklbw %[x1], %[x0], %[x0]
    vpdpbusd %[even], %[high], %[a2]
    vpdpbusd %[odd], %[high], %[a3]
    vpdpbusd %[even], %[x0], %[a0]
    vpdpbusd %[odd], %[x0], %[a1]
    movl 4(%[quad]), %k[o1]
    vpbroadcastd 14(%[quad]), %[even]
    movzwl %w[o1], %k[o0]
    vpbroadcastd 12(%[quad]), %[odd]
    shrl $16, %k[o1]
    vmovdqu64 (%[panel], %[o0], 8), %[x0]
    vmovdqu64 (%[panel], %[o1], 8), %[x1]
    vpunpckhbw %[x1], %[x0], %[high]
    vpunpcklbw %[x1], %[x0], %[x0]
    vpdpbusd %[even], %[high], %[b2]
    vpdpbusd %[odd], %[high], %[b3]
    vpdpbusd %[even], %[x0], %[b0]
    vpdpbusd %[odd], %[x0], %[b1]
    addq $18, %[quad]
    cmpq %[end], %[quad]
    jne 1b
  )"
      : [quad] "+r"(quad), [a0] "+v"(pairs[0][0]), [a1] "+v"(pairs[0][1]), [a2] "+v"(pairs[0][2]),
        [a3] "+v"(pairs[0][3]), [b0] "+v"(pairs[1][0]), [b1] "+v"(pairs[1][1]), [b2] "+v"(pairs[1][2]),
        [b3] "+v"(pairs[1][3]), [o0] "=&r"(o0), [o1] "=&r"(o1), [x0] "=&v"(x0), [x1] "=&v"(x1),
        [high] "=&v"(high), [even] "=&v"(even), [odd] "=&v"(odd)
      : [end] "r"(end), [panel] "r"(panel), "m"(*reinterpret_cast<Memory*>(quad)),
        "m"(*reinterpret_cast<Memory*>(panel))
      : "cc");
}

/// The weights of SparseFours.
class FourWeightsAvx512 {
 public:
  [[gnu::always_inline]] explicit FourWeightsAvx512(const std::uint8_t (&weight)[16])
      : four_(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weight)))) {}

  template <int i>
  [[gnu::always_inline]] void spread(Index<i>, __m512i& to) const {
    to = _mm512_shuffle_epi32(four_, static_cast<_MM_PERM_ENUM>(0x55 * i));
  }
  template <int i>
  [[gnu::always_inline]] void spread(Index<i>, __m512& to) const {
    to = _mm512_castsi512_ps(_mm512_shuffle_epi32(four_, static_cast<_MM_PERM_ENUM>(0x55 * i)));
  }

 private:
  __m512i four_;
};

struct Avx512 {
  using Vector = __m512i;
  using Epilogue = EpilogueAvx512;
  using OneChannel = OneChannelAvx512;
  using Bytes = UnpackedBytesAvx512;
  using Simd = F32x16;
  using Half = Avx512Half;
  using Few = Avx512Few;
  using FourWeights = FourWeightsAvx512;
  template <class Of>
  using PackedAs = Fours<Avx512, Of>;
  static constexpr std::size_t kWidth = 16, kLaneBlock = 64;
  static constexpr bool kHasHalf = true, kHasWords = false, kHasQuadLoop = true;
  static constexpr bool kStoresParts = true, kInterleaved = true;
  static constexpr std::size_t kByteRows = 640, kFloatRows = 128;
  static constexpr int kFloatVectors = 4;

  static Vector load(const std::uint8_t* from) { return _mm512_loadu_si512(from); }
  static void store(std::uint8_t* to, Vector v) { _mm512_storeu_si512(to, v); }
  static void store_first(std::uint8_t* to, Vector v, std::size_t count) {
    _mm512_mask_storeu_epi8(to, first_bits(count), v);
  }
  static Vector add(Vector a, Vector b) { return _mm512_add_epi32(a, b); }
  static Vector broadcast(std::int32_t all) { return _mm512_set1_epi32(all); }
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
  /// What sums of spread quads hold, in the order of Quads: as vectors, and as bytes that these were packed
  /// to.
  static void interleave_halves(const Vector (&sum)[4], Vector (&sums)[4]) {
    sums[0] = _mm512_unpacklo_epi32(sum[0], sum[1]);
    sums[1] = _mm512_unpackhi_epi32(sum[0], sum[1]);
    sums[2] = _mm512_unpacklo_epi32(sum[2], sum[3]);
    sums[3] = _mm512_unpackhi_epi32(sum[2], sum[3]);
  }
  static Vector halves_in_order(Vector bytes) {
    return _mm512_shuffle_epi8(
        bytes, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15)));
  }
  template <bool far>
  static void add_quads(Vector (&a)[4], Vector (&b)[4], const SparseQuad* quad, const SparseQuad* end,
                        const std::uint8_t* panel) {
    if (quad != end) add_quad_pair<far>(a, b, quad, end, panel);
  }
  static Vector packed_in_order(Vector bytes) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_maskz_permutexvar_epi32(0xFFFF, order, bytes);
  }
};

/// Spread quads: each dword of what unpacking two panel rows leaves holds two lanes.
template <template <class> class Base>
struct SpreadQuads {
  using Entry = SparseSpreadQuad;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = Avx512::kLaneBlock;
  static constexpr std::size_t kBlockRows = Avx512::kByteRows;
  static constexpr bool kRowPairs = true;
  static constexpr int kSets = 2;

  struct Sum {
    __m512i sum[4];
    [[gnu::always_inline]] void add(const Sum& other) {
      unroll<4>([&](auto i) GRISTMILL_INLINE { sum[i] = _mm512_add_epi32(sum[i], other.sum[i]); });
    }
  };

  [[gnu::always_inline]] static void add_run(Sum (&sum)[2], const SparseSpreadQuad* quad,
                                             const SparseSpreadQuad* end, const std::uint8_t* panel) {
    if (quad == end) return;
    __m512i pairs[2][4];
    unroll<8>([&](auto i) GRISTMILL_INLINE { pairs[i / 4][i % 4] = sum[i / 4].sum[i % 4]; });
    add_spread_run(pairs, quad, end, panel);
    unroll<8>([&](auto i) GRISTMILL_INLINE { sum[i / 4].sum[i % 4] = pairs[i / 4][i % 4]; });
  }

  struct Finish : Base<Avx512> {
    using Base<Avx512>::Base;
    [[gnu::always_inline]] void start(Sum& of, std::size_t channel) const {
      const __m512i first = _mm512_set1_epi32(this->bias(channel));
      unroll<4>([&](auto i) GRISTMILL_INLINE { of.sum[i] = first; });
    }
    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      this->store_halves(of.sum, channel);
    }
  };

  static void multiply(const SparseJob& job) {
    if (job.lanes <= Avx512Few::kWidth) return SparseRows<FewQuads<Avx512Few, Entry>>::multiply(job);
    if (job.lanes <= kLaneBlock / 2) return Quads<Avx512>::multiply_vectors<Avx512Half, Entry>(job);
    if (FinishBytes<Avx512>::applies(job))
      return SparseRows<gristmill::SpreadQuads<FinishBytes>>::multiply(job);
    SparseRows<SpreadQuads>::multiply(job);
  }
};

}  // namespace

void install_sparse_avx512vnni(SparseKernels& slots) {
  slots.quads = sparse_format<Quads<Avx512>>(false, Quads<Avx512>::multiply);
  slots.quads.row_pairs = true;
  slots.spare_quads = sparse_format<SpreadQuads<FinishS8>>(false, SpreadQuads<FinishS8>::multiply);
  slots.spare_quads.spread = true;
  slots.blocks = sparse_format<Fours<Avx512, Blocks<Avx512>>>(false, Blocks<Avx512>::multiply);
  slots.singles = sparse_format<Fours<Avx512, Singles<Avx512>>>(false, Singles<Avx512>::multiply);
  slots.blocks.fours = slots.singles.fours = true;
}

void install_sparse_intel_avx512vnni(SparseKernels& slots) {
  std::swap(slots.quads, slots.spare_quads);
  slots.blocks.k_block = 448;  // two panel rows are loaded in a cycle if nothing but them is in the cache
}

}  // namespace gristmill
