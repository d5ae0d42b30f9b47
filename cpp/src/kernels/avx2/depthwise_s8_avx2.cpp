#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "depthwise_kernels.h"
#include "epilogue_avx2.h"
#include "kernels/depthwise_spans.h"

/// Exact int8 sums at the rate of the saturating instruction.
///
/// vpmaddubsw adds two u8 x s8 products in 16 bits. A sum of such products over any set of taps lies in
/// 255 * [sum of its negative weights, sum of its positive weights]: it fits if neither sum exceeds 128 in
/// magnitude, and then so does each partial sum, whatever the source. So the weights are dealt to *bins* that
/// keep this bound, two taps to an instruction; a bin is summed in 16 bits, and two bins at a time are
/// widened and added by vpmaddwd with ones:
///
///     x0 x1 x2 ..  y0 y1 y2 ..  ->  x0 y0 x1 y1 ..  vpmaddubsw  w0 w1 w0 w1 ..     one pair of taps
///     bin a0 a1 a2 ..  bin b0 b1 b2 ..  ->  a0 b0 a1 b1 ..  vpmaddwd  1 1 1 1 ..   s32
///
/// A trained 3x3 kernel needs two or three bins, the worst one nine. Zero weights cost nothing.
///
/// Packed weights are 32-bit words: the number of bin couples, and for each the two numbers of pairs followed
/// by the pairs.
namespace gristmill {
namespace {

constexpr std::size_t kVectors = 2;
constexpr std::size_t kBlock = 32 * kVectors;
constexpr int kBinLimit = 128;

struct Pair {
  std::uint32_t tap[2];
  std::uint32_t weights;  // w0, w1, w0, w1
};

struct Couple {
  std::uint32_t pairs[2];
};

/// Room for the last couple found empty, too.
std::size_t packed_words(std::size_t taps) { return 1 + (taps + 3) + 3 * taps; }

std::size_t packed_s8_bytes(std::size_t taps) { return (packed_words(taps) * 4 + taps + 63) / 64 * 64; }

int magnitude(std::int8_t weight) { return weight < 0 ? -weight : weight; }

/// Room of a bin for weights of each sign.
struct Bin {
  int room[2] = {kBinLimit, kBinLimit};

  bool fits(std::int8_t weight) const { return magnitude(weight) <= room[weight < 0]; }
  void add(std::int8_t weight) { room[weight < 0] -= magnitude(weight); }
};

/// The untaken tap of greatest weight that fits, or `taps`.
std::size_t greatest_that_fits(const std::int8_t* weights, const std::uint8_t* taken, std::size_t taps,
                               const Bin& bin) {
  std::size_t best = taps;
  for (std::size_t t = 0; t < taps; ++t) {
    if (weights[t] == 0 || taken[t] || !bin.fits(weights[t])) continue;
    if (best == taps || magnitude(weights[t]) > magnitude(weights[best])) best = t;
  }
  return best;
}

/// Deals what fits into a bin to pairs and returns their number.
std::uint32_t fill_bin(const std::int8_t* weights, std::uint8_t* taken, std::size_t taps, Pair* pairs) {
  Bin bin;
  std::uint32_t dealt = 0;
  for (;;) {
    const std::size_t tap = greatest_that_fits(weights, taken, taps, bin);
    if (tap == taps) return (dealt + 1) / 2;
    bin.add(weights[tap]);
    taken[tap] = 1;
    Pair& pair = pairs[dealt / 2];
    const auto byte = static_cast<std::uint32_t>(static_cast<std::uint8_t>(weights[tap]));
    if (dealt % 2 == 0) pair = {{static_cast<std::uint32_t>(tap), static_cast<std::uint32_t>(tap)}, 0};
    pair.tap[dealt % 2] = static_cast<std::uint32_t>(tap);
    pair.weights |= byte * (dealt % 2 == 0 ? 0x00010001u : 0x01000100u);
    ++dealt;
  }
}

void pack_s8(const std::int8_t* weights, std::size_t taps, void* packed) {
  auto* words = static_cast<std::uint32_t*>(packed);
  auto* taken = reinterpret_cast<std::uint8_t*>(words + packed_words(taps));
  for (std::size_t t = 0; t < taps; ++t) taken[t] = 0;
  std::uint32_t& couples = *words++;
  for (couples = 0;; ++couples) {
    auto* couple = reinterpret_cast<Couple*>(words);
    auto* pairs = reinterpret_cast<Pair*>(words + 2);
    for (std::uint32_t& count : couple->pairs) {
      count = fill_bin(weights, taken, taps, pairs);
      pairs += count;
    }
    if (couple->pairs[0] == 0) return;
    words = reinterpret_cast<std::uint32_t*>(pairs);
  }
}

struct WholeLoads {
  [[gnu::always_inline]] __m256i operator()(const std::uint8_t* p, std::size_t) const {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
};

/// Reads the lanes before `count` and no others.
struct PartialLoads {
  std::size_t count;
  __m256i operator()(const std::uint8_t* p, std::size_t first) const {
    alignas(32) std::uint8_t lanes[32] = {};
    for (std::size_t i = 0; first + i < count && i < 32; ++i) lanes[i] = p[i];
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes));
  }
};

/// Adds a bin's pairs to the 16-bit sums and returns the end of the pairs.
template <class Load>
[[gnu::always_inline]] inline const Pair* sum_bin(const std::uint8_t* source, const std::size_t* offset,
                                                  const Pair* pair, std::uint32_t count, Load load,
                                                  __m256i (&sum)[2 * kVectors]) {
  for (const Pair* end = pair + count; pair != end; ++pair) {
    const std::uint8_t *p = source + offset[pair->tap[0]], *q = source + offset[pair->tap[1]];
    const __m256i weights = _mm256_set1_epi32(static_cast<int>(pair->weights));
    for (std::size_t v = 0; v < kVectors; ++v) {
      const __m256i x = load(p + 32 * v, 32 * v), y = load(q + 32 * v, 32 * v);
      const __m256i low = _mm256_maddubs_epi16(_mm256_unpacklo_epi8(x, y), weights);
      const __m256i high = _mm256_maddubs_epi16(_mm256_unpackhi_epi8(x, y), weights);
      sum[2 * v] = _mm256_add_epi16(sum[2 * v], low);
      sum[2 * v + 1] = _mm256_add_epi16(sum[2 * v + 1], high);
    }
  }
  return pair;
}

template <class Load>
[[gnu::always_inline]] inline void convolve_block(const DepthwiseJob& job, std::size_t lane,
                                                  const EpilogueAvx2& epilogue, const OneChannelAvx2& channel,
                                                  Load load, void* out, std::size_t index) {
  const std::uint8_t* source = static_cast<const std::uint8_t*>(job.source) + lane;
  const auto* words = static_cast<const std::uint32_t*>(job.weights);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i acc[4 * kVectors] = {};
  for (std::uint32_t couples = *words++; couples != 0; --couples) {
    const auto* couple = reinterpret_cast<const Couple*>(words);
    const auto* pair = reinterpret_cast<const Pair*>(words + 2);
    __m256i a[2 * kVectors] = {}, b[2 * kVectors] = {};
    pair = sum_bin(source, job.tap_offset, pair, couple->pairs[0], load, a);
    pair = sum_bin(source, job.tap_offset, pair, couple->pairs[1], load, b);
    words = reinterpret_cast<const std::uint32_t*>(pair);
    for (std::size_t i = 0; i < 2 * kVectors; ++i) {
      const __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(a[i], b[i]), ones);
      const __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(a[i], b[i]), ones);
      acc[2 * i] = _mm256_add_epi32(acc[2 * i], low);
      acc[2 * i + 1] = _mm256_add_epi32(acc[2 * i + 1], high);
    }
  }
  for (std::size_t v = 0; v < kVectors; ++v)
    epilogue.store_unpacked(acc + 4 * v, channel, out, index + 32 * v);
}

template <std::size_t kElementBytes>
void convolve(const DepthwiseJob& job) {
  const auto& constants = *static_cast<const EpilogueS8*>(job.epilogue);
  const EpilogueAvx2 epilogue(constants);
  const OneChannelAvx2 channel(constants, 0);
  for_each_span<kBlock, kElementBytes>(job, [&](std::size_t lane, std::size_t count, void* out) {
    if (count < kBlock && job.readable_slack < kBlock - 1)
      return convolve_block(job, lane, epilogue, channel, PartialLoads{count}, out, 0);
    std::size_t i = 0;
    for (; i + kBlock <= count; i += kBlock)
      convolve_block(job, lane + i, epilogue, channel, WholeLoads{}, out, i);
    if (i == count) return;
    const std::size_t last = count < kBlock ? 0 : count - kBlock;
    convolve_block(job, lane + last, epilogue, channel, WholeLoads{}, out, last);
  });
}

void depthwise_s8(const DepthwiseJob& job) {
  const OutputType type = static_cast<const EpilogueS8*>(job.epilogue)->type;
  if (type == OutputType::u8 || type == OutputType::s8) return convolve<1>(job);
  convolve<4>(job);
}

}  // namespace

void install_depthwise_s8_avx2(DepthwiseKernels& slots) {
  slots.flip = 0;
  slots.packed_s8_bytes = packed_s8_bytes;
  slots.pack_s8 = pack_s8;
  slots.s8 = depthwise_s8;
}

}  // namespace gristmill
