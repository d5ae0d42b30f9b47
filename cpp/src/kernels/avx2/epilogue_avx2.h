#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "epilogue_kernels.h"
#include "kernels/unroll.h"

/// The int8 epilogue on vectors of accumulators, for every kernel that ends in one.
///
/// Accumulators come as N vectors of eight that belong to consecutive elements of the output:
///
///     const EpilogueAvx2 epilogue(e);                     constants in registers, once per tile
///     const OneChannelAvx2 channel(e, row);               or ManyChannelsAvx2<2>(e, first_channel, count)
///     epilogue.store<2>(acc, channel, out, index, count)  writes out[index .. index + count), count <= 16
///
/// After the clamp every value fits its narrow type, so narrowing to bytes keeps the low halves:
///
///     a: s32 a0-3 | a4-7  --+
///                           +-> packs: s16 a0-3 b0-3 | a4-7 b4-7  -> + zero point
///     b: s32 b0-3 | b4-7  --+                                      |
///                                       even bytes: a0-3 b0-3 .. | a4-7 b4-7 ..
///                                                   unpack dwords of both halves: a0-7 b0-7
namespace gristmill {
namespace {

/// Bias and scale of accumulators that are all of one channel. The scale of an s32 output is not used.
struct OneChannelAvx2 {
  __m256i bias_all;
  __m256 scale_all;

  [[gnu::always_inline]] OneChannelAvx2(const EpilogueS8& epilogue, std::size_t channel)
      : bias_all(_mm256_set1_epi32(epilogue.bias[channel])),
        scale_all(_mm256_set1_ps(epilogue.type == OutputType::s32 ? 0.0f : epilogue.scale[channel])) {}
  [[gnu::always_inline]] __m256i bias(int) const { return bias_all; }
  [[gnu::always_inline]] __m256 scale(int) const { return scale_all; }
};

/// Bias and scale of 8N accumulators of consecutive channels, of which the first `count` exist: read in place
/// where all do, and from padded copies otherwise.
template <int N>
class ManyChannelsAvx2 {
 public:
  ManyChannelsAvx2(const EpilogueS8& epilogue, std::size_t first, std::size_t count)
      : bias_(epilogue.bias + first),
        scale_(epilogue.type == OutputType::s32 ? kZeros : epilogue.scale + first) {
    if (count == 8 * N) return;
    for (std::size_t i = 0; i < 8 * N; ++i) {
      bias_copy_[i] = i < count ? bias_[i] : 0;
      scale_copy_[i] = i < count && scale_ != kZeros ? scale_[i] : 0.0f;
    }
    bias_ = bias_copy_;
    scale_ = scale_copy_;
  }
  ManyChannelsAvx2(const ManyChannelsAvx2&) = delete;
  ManyChannelsAvx2& operator=(const ManyChannelsAvx2&) = delete;

  [[gnu::always_inline]] __m256i bias(int n) const {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bias_ + 8 * n));
  }
  [[gnu::always_inline]] __m256 scale(int n) const { return _mm256_loadu_ps(scale_ + 8 * n); }

 private:
  static constexpr float kZeros[8 * N] = {};
  std::int32_t bias_copy_[8 * N];
  float scale_copy_[8 * N];
  const std::int32_t* bias_;
  const float* scale_;
};

/// Stores the first `count` < 16 bytes of `vector`.
[[gnu::always_inline]] inline void store_first(__m128i vector, std::uint8_t* out, std::size_t count) {
  auto bits = static_cast<std::uint64_t>(_mm_cvtsi128_si64(vector));
  if (count & 8) {
    __builtin_memcpy(out, &bits, 8);
    bits = static_cast<std::uint64_t>(_mm_extract_epi64(vector, 1));
    out += 8;
  }
  if (count & 4) {
    __builtin_memcpy(out, &bits, 4);
    bits >>= 32;
    out += 4;
  }
  if (count & 2) {
    __builtin_memcpy(out, &bits, 2);
    bits >>= 16;
    out += 2;
  }
  if (count & 1) *out = static_cast<std::uint8_t>(bits);
}

/// Stores `vector` at out[first ..] as far as out has `count` bytes.
[[gnu::always_inline]] inline void store_part(__m128i vector, std::uint8_t* out, std::size_t first,
                                              std::size_t count) {
  if (count >= first + 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + first), vector);
  } else if (count > first) {
    store_first(vector, out + first, count - first);
  }
}

class EpilogueAvx2 {
 public:
  [[gnu::always_inline]] explicit EpilogueAvx2(const EpilogueS8& epilogue)
      : low_(_mm256_set1_ps(epilogue.low)),
        high_(_mm256_set1_ps(epilogue.high)),
        zero_point_(_mm256_set1_epi16(static_cast<std::int16_t>(epilogue.zero_point))),
        type_(epilogue.type) {}

  /// Sends 8N accumulators through the epilogue and stores the first `count` at element `index` of `out`.
  template <int N, class Channels>
  [[gnu::always_inline]] void store(const __m256i* acc, const Channels& channels, void* out,
                                    std::size_t index, std::size_t count) const {
    auto* bytes = static_cast<std::uint8_t*>(out);
    if (type_ == OutputType::u8 || type_ == OutputType::s8) {
      unroll<(N + 1) / 2>([&](auto pair) GRISTMILL_INLINE {
        constexpr int a = 2 * pair.value, b = a + 1 < N ? a + 1 : a;
        const __m256i low = _mm256_cvtps_epi32(clamped(acc[a], channels, a));
        const __m256i high = a == b ? low : _mm256_cvtps_epi32(clamped(acc[b], channels, b));
        store_part(narrow(low, high), bytes + index, 8 * a, count);
      });
    } else {
      unroll<N>([&](auto n) GRISTMILL_INLINE {
        const __m256i result = type_ == OutputType::s32 ? _mm256_add_epi32(acc[n], channels.bias(n))
                                                        : _mm256_castps_si256(clamped(acc[n], channels, n));
        const __m128i low = _mm256_castsi256_si128(result), high = _mm256_extracti128_si256(result, 1);
        store_part(low, bytes + 4 * index, 32 * n, 4 * count);
        store_part(high, bytes + 4 * index, 32 * n + 16, 4 * count);
      });
    }
  }

  /// Sends 32 accumulators of one channel, in the order that unpacking bytes leaves them in, through the
  /// epilogue and stores them at element `index` of `out`:
  ///
  ///     acc[0]: 0-3 | 16-19    acc[1]: 4-7 | 20-23    acc[2]: 8-11 | 24-27    acc[3]: 12-15 | 28-31
  [[gnu::always_inline]] void store_unpacked(const __m256i* acc, const OneChannelAvx2& channel, void* out,
                                             std::size_t index) const {
    const __m256i in_order[4] = {
        _mm256_permute2x128_si256(acc[0], acc[1], 0x20), _mm256_permute2x128_si256(acc[2], acc[3], 0x20),
        _mm256_permute2x128_si256(acc[0], acc[1], 0x31), _mm256_permute2x128_si256(acc[2], acc[3], 0x31)};
    store<4>(in_order, channel, out, index, 32);
  }

 private:
  /// max and min yield their second operand, the bound, where both are zero.
  template <class Channels>
  [[gnu::always_inline]] __m256 clamped(__m256i acc, const Channels& channels, int n) const {
    const __m256 t = _mm256_cvtepi32_ps(_mm256_add_epi32(acc, channels.bias(n)));
    return _mm256_min_ps(_mm256_max_ps(_mm256_mul_ps(t, channels.scale(n)), low_), high_);
  }

  [[gnu::always_inline]] __m128i narrow(__m256i a, __m256i b) const {
    const __m256i even = _mm256_set1_epi64x(0x0e0c0a0806040200);
    const __m256i words = _mm256_add_epi16(_mm256_packs_epi32(a, b), zero_point_);
    const __m256i bytes = _mm256_shuffle_epi8(words, even);
    return _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  }

  __m256 low_, high_;
  __m256i zero_point_;
  OutputType type_;
};

/// The same in fewer instructions for bytes of one channel, for accumulators that include the bias and are in
/// the order that unpacking bytes leaves them in.
///
/// Rounding is monotonic, so clamping commutes with it: the saturation of the narrowing instructions and a
/// clamp of bytes replace the one of floats. That holds while f32(t) * scale fits 32 bits.
class UnpackedBytesAvx2 {
 public:
  static bool applies(const EpilogueS8& epilogue) {
    return (epilogue.type == OutputType::u8 || epilogue.type == OutputType::s8) && epilogue.scale[0] < 1.0f &&
           epilogue.scale[0] > -1.0f;
  }

  /// Whether scales of any channel may be given.
  static bool applies_to_all(const EpilogueS8& epilogue) {
    return (epilogue.type == OutputType::u8 || epilogue.type == OutputType::s8) && epilogue.small_scales;
  }

  [[gnu::always_inline]] explicit UnpackedBytesAvx2(const EpilogueS8& epilogue)
      : scale_(_mm256_set1_ps(epilogue.type == OutputType::s32 ? 0.0f : epilogue.scale[0])) {
    const int shift = epilogue.type == OutputType::s8 ? 128 : 0;
    const int zero_point = epilogue.zero_point + shift;
    zero_point_ = _mm256_set1_epi16(static_cast<std::int16_t>(zero_point));
    low_ = _mm256_set1_epi8(static_cast<char>(_mm_cvtss_si32(_mm_set_ss(epilogue.low)) + zero_point));
    high_ = _mm256_set1_epi8(static_cast<char>(_mm_cvtss_si32(_mm_set_ss(epilogue.high)) + zero_point));
    flip_ = _mm256_set1_epi8(static_cast<char>(shift));
    bounded_ = shift != 0 || epilogue.low + static_cast<float>(zero_point) > 0.0f ||
               epilogue.high + static_cast<float>(zero_point) < 255.0f;
  }

  /// The 32 bytes in order.
  [[gnu::always_inline]] __m256i operator()(const __m256i* acc) const { return (*this)(acc, scale_); }

  /// The same with the scale of another channel, to which the class applies too.
  [[gnu::always_inline]] __m256i operator()(const __m256i* acc, __m256 scale) const {
    return narrow(scaled(acc, scale), scaled(acc + 2, scale));
  }

  /// The bytes of 16 accumulators of one channel and those of another, both in order.
  [[gnu::always_inline]] __m256i two_rows(const __m256i* a, __m256 scale_a, const __m256i* b,
                                          __m256 scale_b) const {
    return in_order(narrow(scaled(a, scale_a), scaled(b, scale_b)));
  }

  /// The bytes of 32 accumulators of one channel, in order if these are.
  [[gnu::always_inline]] __m256i one_row(const __m256i* acc, __m256 scale) const {
    return in_order((*this)(acc, scale));
  }

 private:
  [[gnu::always_inline]] static __m256i in_order(__m256i bytes) {
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }

  [[gnu::always_inline]] static __m256i scaled(const __m256i* acc, __m256 scale) {
    return _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(acc[0]), scale)),
                              _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(acc[1]), scale)));
  }

  [[gnu::always_inline]] __m256i narrow(__m256i a, __m256i b) const {
    const __m256i words[2] = {_mm256_adds_epi16(a, zero_point_), _mm256_adds_epi16(b, zero_point_)};
    const __m256i bytes = _mm256_packus_epi16(words[0], words[1]);
    if (!bounded_) return bytes;
    return _mm256_xor_si256(_mm256_min_epu8(_mm256_max_epu8(bytes, low_), high_), flip_);
  }

  __m256 scale_;
  __m256i zero_point_, low_, high_, flip_;
  bool bounded_;  ///< by more than what saturates to u8 anyway
};

}  // namespace
}  // namespace gristmill
