#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "byte_pairs_avx2.h"
#include "depthwise_kernels.h"
#include "epilogue_avx2.h"
#include "kernels/depthwise_spans.h"
#include "kernels/unroll.h"

/// Exact int8 sums at the rate of the saturating instruction.
///
/// vpmaddubsw adds two u8 x s8 products in 16 bits, which hold them whatever the source if the weights have
/// opposite signs or |w0| + |w1| <= 128. So the taps are dealt to such *pairs* when the weights are packed,
/// alone where they must, and two pairs are widened and added by vpmaddwd with ones:
///
///     x0 x1 x2 ..  y0 y1 y2 ..  ->  x0 y0 x1 y1 ..  vpmaddubsw  w0 w1 w0 w1 ..     a pair of taps
///     pair a0 a1 a2 ..  b0 b1 b2 ..  ->  a0 b0 a1 b1 ..  vpmaddwd  1 1 1 1 ..      two pairs, s32
///
/// Zero weights cost nothing.
namespace gristmill {
namespace {

constexpr int kVectors = 2;
constexpr std::size_t kBlock = 32 * kVectors;

/// Two pairs: taps a0 a1 and b0 b1.
struct Couple {
  std::uint32_t tap[4];
  std::uint32_t weights[2];  // w0 w1 w0 w1 as bytes
};

/// Packed weights of a channel.
struct Packed {
  std::uint64_t couples;
  Couple couple[1];  // or more
};

std::size_t most_couples(std::size_t taps) { return (taps + 1) / 2; }

std::size_t packed_s8_bytes(std::size_t taps) {
  return (sizeof(std::uint64_t) + most_couples(taps) * sizeof(Couple) + taps + 63) / 64 * 64;
}

/// Deals taps to pairs. Weights of opposite signs go together first, the greatest before others, which leaves
/// the least of one sign to be matched with each other, the greatest with the least.
class Dealer {
 public:
  Dealer(const std::int8_t* weights, std::size_t taps, std::uint8_t* taken)
      : weights_(weights), taps_(taps), taken_(taken) {
    for (std::size_t t = 0; t < taps; ++t) taken_[t] = weights_[t] == 0;
  }

  /// The next pair; a tap alone has itself for a partner. False when all taps are dealt.
  bool deal(std::size_t (&pair)[2]) {
    pair[0] = find([](std::int8_t) { return true; }, [](int now, int best) { return now > best; });
    if (pair[0] == taps_) return false;
    taken_[pair[0]] = 1;
    const std::int8_t first = weights_[pair[0]];
    pair[1] = find([&](std::int8_t w) { return (w < 0) != (first < 0); },
                   [](int now, int best) { return now > best; });
    if (pair[1] == taps_)
      pair[1] = find([&](std::int8_t w) { return may_pair(first, w); },
                     [](int now, int best) { return now > best; });
    if (pair[1] == taps_) pair[1] = pair[0];
    taken_[pair[1]] = 1;
    return true;
  }

 private:
  template <class Fits, class Better>
  std::size_t find(Fits fits, Better better) const {
    std::size_t best = taps_;
    for (std::size_t t = 0; t < taps_; ++t) {
      if (taken_[t] || !fits(weights_[t])) continue;
      if (best == taps_ || better(magnitude(weights_[t]), magnitude(weights_[best]))) best = t;
    }
    return best;
  }

  const std::int8_t* weights_;
  std::size_t taps_;
  std::uint8_t* taken_;
};

void pack_s8(const std::int8_t* weights, std::size_t taps, void* packed) {
  auto& to = *static_cast<Packed*>(packed);
  Dealer dealer(weights, taps, reinterpret_cast<std::uint8_t*>(to.couple + most_couples(taps)));
  std::size_t pairs = 0, pair[2];
  for (; dealer.deal(pair); ++pairs) {
    Couple& couple = to.couple[pairs / 2];
    const bool alone = pair[0] == pair[1];
    if (pairs % 2 == 0) couple = {};
    couple.tap[pairs % 2 * 2] = static_cast<std::uint32_t>(pair[0]);
    couple.tap[pairs % 2 * 2 + 1] = static_cast<std::uint32_t>(pair[1]);
    couple.weights[pairs % 2] = pair_bytes(weights[pair[0]], alone ? std::int8_t{0} : weights[pair[1]]);
  }
  to.couples = (pairs + 1) / 2;
}

struct WholeLoads {
  /// Loads once for all uses: unaligned loads are what limits the kernel, and the compiler would rather
  /// repeat them as memory operands than spend a register.
  [[gnu::always_inline]] __m256i operator()(const std::uint8_t* p, std::size_t) const {
    __m256i loaded = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    asm("" : "+x"(loaded));
    return loaded;
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

/// The 16-bit sums of a pair of taps: of lanes 0-7 and 16-23, and of 8-15 and 24-31.
struct PairSum {
  __m256i low, high;

  [[gnu::always_inline]] PairSum(__m256i x, __m256i y, __m256i weights)
      : low(_mm256_maddubs_epi16(_mm256_unpacklo_epi8(x, y), weights)),
        high(_mm256_maddubs_epi16(_mm256_unpackhi_epi8(x, y), weights)) {}
};

/// Sums of a block, bias included.
template <class Load>
[[gnu::always_inline]] inline void convolve_block(const DepthwiseJob& job, std::size_t lane, __m256i bias,
                                                  Load load, __m256i (&acc)[4 * kVectors]) {
  const std::uint8_t* source = static_cast<const std::uint8_t*>(job.source) + lane;
  const std::size_t* offset = job.tap_offset;
  const auto& packed = *static_cast<const Packed*>(job.weights);
  const __m256i ones = _mm256_set1_epi16(1);
  unroll<4 * kVectors>([&](auto i) GRISTMILL_INLINE { acc[i] = bias; });
  for (const Couple *couple = packed.couple, *end = couple + packed.couples; couple != end; ++couple) {
    const std::uint8_t* p[4];
    unroll<4>([&](auto i) GRISTMILL_INLINE { p[i] = source + offset[couple->tap[i]]; });
    const __m256i a_weights = _mm256_set1_epi32(static_cast<int>(couple->weights[0]));
    const __m256i b_weights = _mm256_set1_epi32(static_cast<int>(couple->weights[1]));
    unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
      const PairSum a(load(p[0] + 32 * v, 32 * v), load(p[1] + 32 * v, 32 * v), a_weights);
      const PairSum b(load(p[2] + 32 * v, 32 * v), load(p[3] + 32 * v, 32 * v), b_weights);
      const auto add = [&](auto i, __m256i words) GRISTMILL_INLINE {
        acc[4 * v + i] = _mm256_add_epi32(acc[4 * v + i], _mm256_madd_epi16(words, ones));
      };
      add(Index<0>{}, _mm256_unpacklo_epi16(a.low, b.low));
      add(Index<1>{}, _mm256_unpackhi_epi16(a.low, b.low));
      add(Index<2>{}, _mm256_unpacklo_epi16(a.high, b.high));
      add(Index<3>{}, _mm256_unpackhi_epi16(a.high, b.high));
    });
  }
}

/// finish(acc, out, index) sends a block through the epilogue.
template <std::size_t kElementBytes, class Finish>
void convolve(const DepthwiseJob& job, Finish finish) {
  const __m256i bias = _mm256_set1_epi32(static_cast<const EpilogueS8*>(job.epilogue)->bias[0]);
  for_each_span<kBlock, kElementBytes>(job, [&](std::size_t lane, std::size_t count, void* out) {
    __m256i acc[4 * kVectors];
    if (count < kBlock && job.readable_slack < kBlock - 1) {
      convolve_block(job, lane, bias, PartialLoads{count}, acc);
      return finish(acc, out, std::size_t{0});
    }
    for (std::size_t i = 0; i < count; i += kBlock) {
      const std::size_t at = i + kBlock <= count || count < kBlock ? i : count - kBlock;
      convolve_block(job, lane + at, bias, WholeLoads{}, acc);
      finish(acc, out, at);
    }
  });
}

void depthwise_s8(const DepthwiseJob& job) {
  const auto& constants = *static_cast<const EpilogueS8*>(job.epilogue);
  if (UnpackedBytesAvx2::applies(constants)) {
    const UnpackedBytesAvx2 bytes(constants);
    return convolve<1>(job, [&](const __m256i* acc, void* out, std::size_t index) GRISTMILL_INLINE {
      auto* to = static_cast<std::uint8_t*>(out) + index;
      unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32 * v), bytes(acc + 4 * v));
      });
    });
  }
  const EpilogueAvx2 epilogue(constants);
  OneChannelAvx2 channel(constants, 0);
  channel.bias_all = _mm256_setzero_si256();  // added already
  const auto store = [&](const __m256i* acc, void* out, std::size_t index) {
    unroll<kVectors>([&](auto v) { epilogue.store_unpacked(acc + 4 * v, channel, out, index + 32 * v); });
  };
  const bool is_byte = constants.type == OutputType::u8 || constants.type == OutputType::s8;
  return is_byte ? convolve<1>(job, store) : convolve<4>(job, store);
}

}  // namespace

void install_depthwise_s8_avx2(DepthwiseKernels& slots) {
  slots.flip = 0;
  slots.packed_s8_bytes = packed_s8_bytes;
  slots.pack_s8 = pack_s8;
  slots.s8 = depthwise_s8;
}

}  // namespace gristmill
