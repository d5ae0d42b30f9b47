#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "dense_kernels.h"
#include "kernels/avx512vnni/epilogue_avx512vnni.h"
#include "kernels/dense_s8_tiles.h"

namespace gristmill {
namespace {

struct RowBytesAvx512 : UnpackedBytesAvx512 {
  using UnpackedBytesAvx512::UnpackedBytesAvx512;

  [[gnu::always_inline]] void store(const __m512i* a, float scale_a, const __m512i* b, float scale_b,
                                    std::uint8_t* out, std::size_t stride) const {
    store_row(a, scale_a, out);
    store_row(b, scale_b, out + stride);
  }

 private:
  /// Two stores are quicker than one with a mask.
  [[gnu::always_inline]] void store_row(const __m512i* acc, float scale, std::uint8_t* out) const {
    const __m512i four[4] = {acc[0], acc[1], acc[2], acc[2]};
    const __m512i row = in_order((*this)(four, _mm512_set1_ps(scale)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(row));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 32), _mm512_extracti32x4_epi32(row, 2));
  }
};

/// vpdpbusd multiplies u8 by s8 and adds four products to an s32 sum, exactly. Eight rows x 48 lanes, or six
/// rows x 64: 24 sums of 32 registers hide its latency and load little for each multiplication.
struct Avx512Vnni {
  using Vector = __m512i;
  using Bytes = __m512i;
  using Epilogue = EpilogueAvx512;
  using OneChannel = OneChannelAvx512;
  using RowBytes = RowBytesAvx512;
  template <int N>
  using ManyChannels = ManyChannelsAvx512<N>;
  static constexpr int kWidth = 16;
  static constexpr std::size_t kRowBlock = 8;
  template <ChannelAxis axis>
  static constexpr int kLaneVectors = axis == ChannelAxis::rows ? 3 : 4;
  static constexpr int kMostSingles = 4;
  static constexpr bool kPairs = false, kFetchesApart = false;
  static constexpr int kTileRows = 6, kTileSums = 24;
  static constexpr std::uint8_t kFlip = 0;
  static constexpr bool kOffset = false;
  static constexpr bool kCouples = false;

  static __m512i zero() { return _mm512_setzero_si512(); }
  static __m512i load_bytes(const std::uint8_t* from) { return _mm512_loadu_si512(from); }
  static __m512i load_all(const std::int32_t* from) { return _mm512_set1_epi32(*from); }
  static __m512i load_rows(const std::uint8_t* from) { return _mm512_maskz_loadu_epi32(0xFF, from); }
  static __m512i broadcast_group(const std::uint8_t* from) {
    std::int32_t group;
    __builtin_memcpy(&group, from, 4);
    return _mm512_set1_epi32(group);
  }

  struct Activation {
    __m512i bytes;
    Activation() = default;
    explicit Activation(__m512i x) : bytes(x) {}
    __m512i multiply_add(__m512i weights, __m512i sum) const {
      return _mm512_dpbusd_epi32(sum, bytes, weights);
    }
  };
};

}  // namespace
}  // namespace gristmill
