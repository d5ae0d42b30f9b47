#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "epilogue_kernels.h"
#include "kernels/unroll.h"

/// The int8 epilogue on vectors of accumulators, for every kernel that ends in one.
///
/// Accumulators come as N vectors of sixteen that belong to consecutive elements of the output:
///
///     const EpilogueAvx512 epilogue(e);         constants in registers, once per tile
///     const OneChannelAvx512 channel(e, row);   or ManyChannelsAvx512<3>(e, first_channel, count)
///     epilogue.store<3>(acc, channel, out, index, count);   writes out[index .. index + count), count <= 48
///
/// Four vectors a, b, c, d narrow to bytes together. s8 takes the way of u8, shifted by 128, and the pack
/// instructions work within 128-bit quarters, which one permutation of dwords puts in order:
///
///     packs   s16  quarter i: a[4i..] b[4i..]   and   c[4i..] d[4i..]    -> + zero point
///     packus  u8   quarter i: a[4i..] b[4i..] c[4i..] d[4i..]            -> dword 4j + i is at 4i + j
namespace gristmill {
namespace {

/// The first `count` of as many elements as the mask has bits.
[[gnu::always_inline]] inline std::uint64_t first_bits(std::size_t count) {
  return count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
}

/// How many of `width` elements from `first` on lie below `count`.
[[gnu::always_inline]] inline std::size_t part_of(std::size_t count, std::size_t first, std::size_t width) {
  return count <= first ? 0 : count - first < width ? count - first : width;
}

/// Bias and scale of accumulators that are all of one channel. The scale of an s32 output is not used.
struct OneChannelAvx512 {
  __m512i bias_all;
  __m512 scale_all;

  [[gnu::always_inline]] OneChannelAvx512(const EpilogueS8& epilogue, std::size_t channel)
      : bias_all(_mm512_set1_epi32(epilogue.bias[channel])),
        scale_all(_mm512_set1_ps(epilogue.type == OutputType::s32 ? 0.0f : epilogue.scale[channel])) {}
  [[gnu::always_inline]] __m512i bias(int) const { return bias_all; }
  [[gnu::always_inline]] __m512 scale(int) const { return scale_all; }
};

/// Bias and scale of 16N accumulators of consecutive channels, of which the first `count` exist.
template <int N>
class ManyChannelsAvx512 {
 public:
  [[gnu::always_inline]] ManyChannelsAvx512(const EpilogueS8& epilogue, std::size_t first, std::size_t count)
      : bias_(epilogue.bias + first),
        scale_(epilogue.type == OutputType::s32 ? nullptr : epilogue.scale + first),
        count_(count) {}

  [[gnu::always_inline]] __m512i bias(int n) const {
    return _mm512_maskz_loadu_epi32(mask(n), bias_ + 16 * n);
  }
  [[gnu::always_inline]] __m512 scale(int n) const { return _mm512_maskz_loadu_ps(mask(n), scale_ + 16 * n); }

 private:
  [[gnu::always_inline]] __mmask16 mask(int n) const {
    return static_cast<__mmask16>(first_bits(part_of(count_, static_cast<std::size_t>(16 * n), 16)));
  }

  const std::int32_t* bias_;
  const float* scale_;
  std::size_t count_;
};

/// Bytes that packing has left in its order.
[[gnu::always_inline]] inline __m512i in_order(__m512i packed) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_maskz_permutexvar_epi32(0xFFFF, order, packed);
}

/// Narrows rounded sums to bytes: adds the zero point, saturates, clamps. What would change nothing is left
/// out, as it is for most layers: behind a relu the zero point is 0 and the clamp that of a byte.
class NarrowAvx512 {
 public:
  [[gnu::always_inline]] explicit NarrowAvx512(const EpilogueS8& epilogue) {
    const int shift = epilogue.type == OutputType::s8 ? 128 : 0, zero_point = epilogue.zero_point + shift;
    const int low = _mm_cvtss_si32(_mm_set_ss(epilogue.low)) + zero_point;
    const int high = _mm_cvtss_si32(_mm_set_ss(epilogue.high)) + zero_point;
    zero_point_ = _mm512_set1_epi16(static_cast<std::int16_t>(zero_point));
    low_ = _mm512_set1_epi8(static_cast<char>(low));
    high_ = _mm512_set1_epi8(static_cast<char>(high));
    flip_ = _mm512_set1_epi8(static_cast<char>(shift));
    moves_ = zero_point != 0;
    clamps_ = low != 0 || high != 255 || shift != 0;
  }

  /// In the order that packing leaves bytes in.
  [[gnu::always_inline]] __m512i operator()(__m512i a, __m512i b, __m512i c, __m512i d) const {
    __m512i low = _mm512_packs_epi32(a, b), high = _mm512_packs_epi32(c, d);
    if (moves_) {
      low = _mm512_adds_epi16(low, zero_point_);
      high = _mm512_adds_epi16(high, zero_point_);
    }
    const __m512i bytes = _mm512_packus_epi16(low, high);
    if (!clamps_) return bytes;
    return _mm512_xor_si512(_mm512_min_epu8(_mm512_max_epu8(bytes, low_), high_), flip_);
  }

 private:
  __m512i zero_point_, low_, high_, flip_;
  bool moves_, clamps_;
};

class EpilogueAvx512 {
 public:
  /// The parameters must outlive it.
  [[gnu::always_inline]] explicit EpilogueAvx512(const EpilogueS8& epilogue)
      : parameters_(epilogue),
        low_(_mm512_set1_ps(epilogue.low)),
        high_(_mm512_set1_ps(epilogue.high)),
        narrow_(epilogue),
        small_scales_(epilogue.small_scales),
        type_(epilogue.type) {}

  /// Sends 16N accumulators through the epilogue and stores the first `count` at element `index` of `out`.
  template <int N, class Channels>
  [[gnu::always_inline]] void store(const __m512i* acc, const Channels& channels, void* out,
                                    std::size_t index, std::size_t count) const {
    if (type_ == OutputType::u8 || type_ == OutputType::s8) {
      auto* bytes = static_cast<std::uint8_t*>(out) + index;
      if (small_scales_) {
        store_bytes<N>(acc, bytes, count,
                       [&](__m512i sum, int n) GRISTMILL_INLINE { return scaled(sum, channels, n); });
      } else {
        __m512i sums[N];
        unroll<N>([&](auto n) GRISTMILL_INLINE { sums[n] = acc[n]; });
        store_clamped_bytes<N>(parameters_, sums, Channels(channels), bytes, count);
      }
    } else {
      auto* words = static_cast<std::int32_t*>(out) + index;
      unroll<N>([&](auto n) GRISTMILL_INLINE {
        const __m512i result = type_ == OutputType::s32 ? _mm512_add_epi32(acc[n], channels.bias(n))
                                                        : _mm512_castps_si512(clamped(acc[n], channels, n));
        const auto mask = static_cast<__mmask16>(first_bits(part_of(count, 16 * n, 16)));
        _mm512_mask_storeu_epi32(words + 16 * n, mask, result);
      });
    }
  }

  /// Sends 64 accumulators of one channel, in the order that unpacking bytes leaves them in, through the
  /// epilogue and stores them at element `index` of `out`. Quarter i of vector n holds accumulators 16i + 4n
  /// to 16i + 4n + 3.
  [[gnu::always_inline]] void store_unpacked(const __m512i* acc, const OneChannelAvx512& channel, void* out,
                                             std::size_t index) const {
    const auto quarters = [](__m512i a, __m512i b, auto which) GRISTMILL_INLINE {
      return _mm512_maskz_shuffle_i32x4(kAll, a, b, which.value);
    };
    const __m512i ab_low = quarters(acc[0], acc[1], Index<0x44>{});
    const __m512i ab_high = quarters(acc[0], acc[1], Index<0xEE>{});
    const __m512i cd_low = quarters(acc[2], acc[3], Index<0x44>{});
    const __m512i cd_high = quarters(acc[2], acc[3], Index<0xEE>{});
    const __m512i in_order[4] = {
        quarters(ab_low, cd_low, Index<0x88>{}), quarters(ab_low, cd_low, Index<0xDD>{}),
        quarters(ab_high, cd_high, Index<0x88>{}), quarters(ab_high, cd_high, Index<0xDD>{})};
    store<4>(in_order, channel, out, index, 64);
  }

 private:
  static constexpr __mmask16 kAll = 0xFFFF;

  template <class Channels>
  [[gnu::always_inline]] __m512 scaled(__m512i acc, const Channels& channels, int n) const {
    const __m512 t = _mm512_maskz_cvtepi32_ps(kAll, _mm512_add_epi32(acc, channels.bias(n)));
    return _mm512_mul_ps(t, channels.scale(n));
  }

  /// max and min yield their second operand, the bound, where both are zero.
  template <class Channels>
  [[gnu::always_inline]] __m512 clamped(__m512i acc, const Channels& channels, int n) const {
    return _mm512_maskz_min_ps(kAll, _mm512_maskz_max_ps(kAll, scaled(acc, channels, n), low_), high_);
  }

  /// Rare, and apart, for it would double every kernel. (Its callers pass copies, and no epilogue: what a
  /// call may see is kept in memory.)
  template <int N, class Channels>
  [[gnu::noinline]] static void store_clamped_bytes(const EpilogueS8& parameters, const __m512i* acc,
                                                    const Channels& channels, std::uint8_t* bytes,
                                                    std::size_t count) {
    const EpilogueAvx512 epilogue(parameters);
    epilogue.template store_bytes<N>(acc, bytes, count, [&](__m512i sum, int n) GRISTMILL_INLINE {
      return epilogue.clamped(sum, channels, n);
    });
  }

  /// value(acc[n], n) is what is rounded.
  template <int N, class Value>
  [[gnu::always_inline]] void store_bytes(const __m512i* acc, std::uint8_t* bytes, std::size_t count,
                                          Value value) const {
    unroll<(N + 3) / 4>([&](auto quad) GRISTMILL_INLINE {
      constexpr int first = 4 * quad.value;
      __m512i q[4];
      unroll<4>([&](auto i) GRISTMILL_INLINE {
        constexpr int n = first + i.value < N ? first + i.value : N - 1;
        q[i] = first + i < N ? _mm512_maskz_cvtps_epi32(kAll, value(acc[n], n)) : q[N - 1 - first];
      });
      const std::size_t part = part_of(count, 16 * first, 64);
      _mm512_mask_storeu_epi8(bytes + 16 * first, first_bits(part), narrow(q));
    });
  }

  [[gnu::always_inline]] __m512i narrow(const __m512i (&q)[4]) const {
    return in_order(narrow_(q[0], q[1], q[2], q[3]));
  }

  const EpilogueS8& parameters_;
  __m512 low_, high_;
  NarrowAvx512 narrow_;
  bool small_scales_;
  OutputType type_;
};

/// The same in fewer instructions for bytes of one channel, for accumulators that include the bias and are in
/// the order that unpacking bytes leaves them in, which packing undoes.
///
/// Rounding is monotonic, so clamping commutes with it: the saturation of the narrowing instructions and a
/// clamp of bytes replace the one of floats. That holds while f32(t) * scale fits 32 bits.
class UnpackedBytesAvx512 {
 public:
  static bool applies(const EpilogueS8& epilogue) {
    return (epilogue.type == OutputType::u8 || epilogue.type == OutputType::s8) && epilogue.scale[0] < 1.0f &&
           epilogue.scale[0] > -1.0f;
  }

  /// Whether scales of any channel may be given.
  static bool applies_to_all(const EpilogueS8& epilogue) {
    return (epilogue.type == OutputType::u8 || epilogue.type == OutputType::s8) && epilogue.small_scales;
  }

  [[gnu::always_inline]] explicit UnpackedBytesAvx512(const EpilogueS8& epilogue)
      : scale_(_mm512_set1_ps(epilogue.type == OutputType::s32 ? 0.0f : epilogue.scale[0])),
        narrow_(epilogue) {}

  /// The 64 bytes in order.
  [[gnu::always_inline]] __m512i operator()(const __m512i* acc) const { return (*this)(acc, scale_); }

  /// The same with the scale of another channel, to which the class applies too.
  [[gnu::always_inline]] __m512i operator()(const __m512i* acc, __m512 scale) const {
    const auto scaled = [&](int n) GRISTMILL_INLINE {
      const __m512 value = _mm512_mul_ps(_mm512_maskz_cvtepi32_ps(0xFFFF, acc[n]), scale);
      return _mm512_maskz_cvtps_epi32(0xFFFF, value);
    };
    return narrow_(scaled(0), scaled(1), scaled(2), scaled(3));
  }

 private:
  __m512 scale_;
  NarrowAvx512 narrow_;
};

}  // namespace
}  // namespace gristmill
