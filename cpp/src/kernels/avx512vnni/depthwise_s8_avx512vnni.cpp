#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "depthwise_kernels.h"
#include "epilogue_avx512vnni.h"
#include "kernels/depthwise_spans.h"
#include "kernels/unroll.h"

/// vpdpbusd takes four taps of a pixel side by side. Where three or four taps are neighbours in memory, one
/// byte shuffle of a row puts them there; j = 0..3 chooses four pixels of each 16-byte quarter, and the last
/// four, whose taps lie in the next quarter, come from a second load, 12 bytes on:
///
///     x0 x1 x2 ... x15          j = 0:  x0 x1 x2 x3  x1 x2 x3 x4  x2 x3 x4 x5  x3 x4 x5 x6
///     x12 x13 x14 ... x27       j = 3:  x12 x13 x14 x15  x13 x14 ..
///
/// Other taps are loaded one by one, four at a time, and interleaved by unpacking bytes and then words, which
/// leaves the pixels in the same order.
namespace gristmill {
namespace {

constexpr std::size_t kBlock = 64;
constexpr std::size_t kSecondLoad = 12;

std::size_t packed_s8_bytes(std::size_t taps) { return (taps + 3 + 63) / 64 * 64; }

/// The weights as they are and zeros, so that four can be read from each.
void pack_s8(const std::int8_t* weights, std::size_t taps, void* packed) {
  auto* to = static_cast<std::int8_t*>(packed);
  for (std::size_t t = 0; t < taps + 3; ++t) to[t] = t < taps ? weights[t] : std::int8_t{0};
}

std::uint64_t first_lanes(std::size_t count) {
  return count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
}

/// Pixels and weights of a block.
struct Block {
  const std::uint8_t* source;
  const std::size_t* offset;
  const std::int8_t* weights;
  std::size_t count;  // pixels that may be read
};

/// The first of the bytes that `count` pixels read, `skipped` bytes on. All pixels of a whole block are read.
template <bool kWhole>
[[gnu::always_inline]] inline __m512i load(const std::uint8_t* p, std::size_t count, std::size_t skipped) {
  if (kWhole && skipped == 0) return _mm512_loadu_si512(p);
  const std::uint64_t mask =
      kWhole ? first_lanes(count - skipped) : first_lanes(count > skipped ? count - skipped : 0);
  return _mm512_maskz_loadu_epi8(mask, p + skipped);
}

/// Adds `kRun` = 3 or 4 neighbouring taps from tap `t` on.
template <bool kWhole, std::size_t kRun>
[[gnu::always_inline]] inline void add_run(const Block& block, std::size_t t, __m512i (&acc)[4]) {
  const __m128i of_quarter = _mm_setr_epi8(0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 6);
  std::uint32_t four;
  __builtin_memcpy(&four, block.weights + t, 4);
  const __m512i weights = _mm512_set1_epi32(static_cast<int>(kRun == 3 ? four & 0xFFFFFF : four));
  const std::uint8_t* p = block.source + block.offset[t];
  const std::size_t count = (kWhole ? kBlock : block.count) + kRun - 1;
  const __m512i first = load<kWhole>(p, count, 0), second = load<kWhole>(p, count, kSecondLoad);
  unroll<4>([&](auto j) GRISTMILL_INLINE {
    const __m128i of_j = _mm_add_epi8(of_quarter, _mm_set1_epi8(j == 3 ? 0 : 4 * j));
    const __m512i shuffle = _mm512_maskz_broadcast_i32x4(0xFFFF, of_j);
    acc[j] = _mm512_dpbusd_epi32(acc[j], _mm512_shuffle_epi8(j == 3 ? second : first, shuffle), weights);
  });
}

/// Adds four taps from anywhere.
template <bool kWhole>
[[gnu::always_inline]] inline void add_taps(const Block& block, const std::size_t (&tap)[4],
                                            std::uint32_t four, __m512i (&acc)[4]) {
  __m512i x[4];
  unroll<4>([&](auto i) GRISTMILL_INLINE {
    x[i] = load<kWhole>(block.source + block.offset[tap[i]], block.count, 0);
  });
  const __m512i low01 = _mm512_unpacklo_epi8(x[0], x[1]), high01 = _mm512_unpackhi_epi8(x[0], x[1]);
  const __m512i low23 = _mm512_unpacklo_epi8(x[2], x[3]), high23 = _mm512_unpackhi_epi8(x[2], x[3]);
  const __m512i weights = _mm512_set1_epi32(static_cast<int>(four));
  acc[0] = _mm512_dpbusd_epi32(acc[0], _mm512_unpacklo_epi16(low01, low23), weights);
  acc[1] = _mm512_dpbusd_epi32(acc[1], _mm512_unpackhi_epi16(low01, low23), weights);
  acc[2] = _mm512_dpbusd_epi32(acc[2], _mm512_unpacklo_epi16(high01, high23), weights);
  acc[3] = _mm512_dpbusd_epi32(acc[3], _mm512_unpackhi_epi16(high01, high23), weights);
}

/// Taps from tap `t` on that are neighbours in memory, at most 4.
[[gnu::always_inline]] inline std::size_t neighbours(const std::size_t* offset, std::size_t t,
                                                     std::size_t taps) {
  std::size_t run = 1;
  while (run < 4 && t + run < taps && offset[t + run] == offset[t] + run) ++run;
  return run;
}

/// Adds all taps of a block to `acc`.
template <bool kWhole>
[[gnu::always_inline]] inline void sum_taps(const Block& block, std::size_t taps, __m512i (&acc)[4]) {
  std::size_t single[4] = {}, singles = 0;
  std::uint32_t four = 0;
  for (std::size_t t = 0; t < taps;) {
    const std::size_t run = neighbours(block.offset, t, taps);
    if (run >= 3) {
      run == 3 ? add_run<kWhole, 3>(block, t, acc) : add_run<kWhole, 4>(block, t, acc);
      t += run;
      continue;
    }
    four |= std::uint32_t{static_cast<std::uint8_t>(block.weights[t])} << 8 * singles;
    single[singles++] = t++;
    if (singles < 4) continue;
    add_taps<kWhole>(block, single, four, acc);
    singles = four = 0;
  }
  if (singles > 0) add_taps<kWhole>(block, single, four, acc);
}

/// finish(acc, out, index) sends a block, bias included, through the epilogue.
template <std::size_t kElementBytes, class Finish>
void convolve(const DepthwiseJob& job, Finish finish) {
  const __m512i bias = _mm512_set1_epi32(static_cast<const EpilogueS8*>(job.epilogue)->bias[0]);
  const auto* source = static_cast<const std::uint8_t*>(job.source);
  const auto* weights = static_cast<const std::int8_t*>(job.weights);
  for_each_span<kBlock, kElementBytes>(job, [&](std::size_t lane, std::size_t count, void* out) {
    __m512i acc[4];
    const auto set_bias = [&](auto j) GRISTMILL_INLINE { acc[j] = bias; };
    if (count < kBlock) {
      unroll<4>(set_bias);
      sum_taps<false>({source + lane, job.tap_offset, weights, count}, job.taps, acc);
      return finish(acc, out, std::size_t{0});
    }
    for (std::size_t i = 0; i < count; i += kBlock) {
      const std::size_t at = i + kBlock <= count ? i : count - kBlock;
      unroll<4>(set_bias);
      sum_taps<true>({source + lane + at, job.tap_offset, weights, kBlock}, job.taps, acc);
      finish(acc, out, at);
    }
  });
}

void depthwise_s8(const DepthwiseJob& job) {
  const auto& constants = *static_cast<const EpilogueS8*>(job.epilogue);
  if (UnpackedBytesAvx512::applies(constants)) {
    const UnpackedBytesAvx512 bytes(constants);
    return convolve<1>(job, [&](const __m512i* acc, void* out, std::size_t index) GRISTMILL_INLINE {
      _mm512_storeu_si512(static_cast<std::uint8_t*>(out) + index, bytes(acc));
    });
  }
  const EpilogueAvx512 epilogue(constants);
  OneChannelAvx512 channel(constants, 0);
  channel.bias_all = _mm512_setzero_si512();  // added already
  const auto store = [&](const __m512i* acc, void* out, std::size_t index)
                         GRISTMILL_INLINE { epilogue.store_unpacked(acc, channel, out, index); };
  const bool is_byte = constants.type == OutputType::u8 || constants.type == OutputType::s8;
  return is_byte ? convolve<1>(job, store) : convolve<4>(job, store);
}

}  // namespace

void install_depthwise_s8_avx512vnni(DepthwiseKernels& slots) {
  slots.flip = 0;
  slots.packed_s8_bytes = packed_s8_bytes;
  slots.pack_s8 = pack_s8;
  slots.s8 = depthwise_s8;
  slots.strips_s8 = {};
}

}  // namespace gristmill
