#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "depthwise_kernels.h"
#include "epilogue_avx2.h"
#include "kernels/unroll.h"

/// One byte shuffle puts two neighbouring taps of eight pixels side by side, widened to the words that
/// vpmaddwd multiplies exactly: both halves of a register hold the same window, from which an index picks any
/// byte, and 0 where its top bit is set. Where pixels need it, the second window is shuffled by indices less
/// 0x10, which sets the top bit of the first window's and clears that of its own.
namespace gristmill {
namespace {

constexpr int kVectors = 4;
constexpr std::size_t kLanes = 8;

/// Staged planes are multiplied twice as fast, which pays for the copy of all but small ones, sooner where no
/// stride splits them.
constexpr std::size_t kMost = 100, kMostStrided = 400;

/// What all planes of a call have in common.
struct Layer {
  const __m256i* indices;
  std::size_t groups, group_vectors;
  __m256i padding, flip;
  bool pads;  ///< whether padding is anything but the 0 that shuffling leaves

  explicit Layer(const DepthwiseGatherJob& job)
      : indices(static_cast<const __m256i*>(job.indices)),
        groups(job.groups),
        group_vectors(job.group_vectors),
        padding(_mm256_set1_epi16(static_cast<std::int16_t>(job.padding ^ job.flip))),
        flip(_mm256_set1_epi8(static_cast<char>(job.flip))),
        pads(job.padding != job.flip) {}

  [[gnu::always_inline]] __m256i window(const std::uint8_t* from) const {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_xor_si256(_mm256_broadcastsi128_si256(bytes), flip);
  }
};

/// Adds a kernel row to a vector of pixels; kPairs pairs of taps, or any number where it is 0.
template <int kPairs, bool kSecond, bool kPadded>
[[gnu::always_inline]] inline __m256i add_row(const Layer& layer, const std::uint8_t* source,
                                              const GatherWindows& windows, const std::int32_t* weights,
                                              __m256i acc) {
  const __m256i* indices = layer.indices + windows.indices;
  const __m256i a = layer.window(source + windows.first[0]);
  const __m256i b = kSecond ? layer.window(source + windows.first[1]) : a;
  const auto add_pair = [&](std::size_t pair) GRISTMILL_INLINE {
    const __m256i index = _mm256_load_si256(indices + pair);
    __m256i x = _mm256_shuffle_epi8(a, index);
    if (kSecond) {
      const __m256i of_second = _mm256_sub_epi8(index, _mm256_set1_epi8(0x10));
      x = _mm256_or_si256(x, _mm256_shuffle_epi8(b, of_second));
    }
    if (kPadded) {
      const __m256i is_padding = _mm256_cmpeq_epi8(index, _mm256_set1_epi8(static_cast<char>(0xC0)));
      x = _mm256_or_si256(x, _mm256_and_si256(is_padding, layer.padding));
    }
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(x, _mm256_set1_epi32(weights[pair])));
  };
  if constexpr (kPairs == 0)
    for (std::size_t pair = 0; pair < layer.group_vectors; ++pair) add_pair(pair);
  else
    unroll<kPairs>(add_pair);
  return acc;
}

template <int kPairs>
[[gnu::always_inline]] inline __m256i add_row(const Layer& layer, const std::uint8_t* source,
                                              const GatherWindows& windows, const std::int32_t* weights,
                                              __m256i acc) {
  const bool pads = windows.padded && layer.pads;
  if (windows.second && pads) return add_row<kPairs, true, true>(layer, source, windows, weights, acc);
  if (windows.second) return add_row<kPairs, true, false>(layer, source, windows, weights, acc);
  if (pads) return add_row<kPairs, false, true>(layer, source, windows, weights, acc);
  return add_row<kPairs, false, false>(layer, source, windows, weights, acc);
}

/// finish(acc, position, count) sends a block, bias included, through the epilogue.
template <int kPairs, class Finish>
[[gnu::always_inline]] inline void convolve_plane(const DepthwiseGatherJob& job, const Layer& layer,
                                                  const std::uint8_t* source, const std::int32_t* weights,
                                                  __m256i bias, Finish finish) {
  std::size_t position = 0;
  for (std::size_t s = 0; s < job.segment_count; ++s) {
    const GatherSegment& segment = job.segments[s];
    const GatherWindows* windows = segment.windows;
    const std::uint8_t* from = source + segment.source;
    for (std::size_t b = 0; b < segment.block_count; ++b) {
      const std::size_t count = segment.blocks[b].pixels;
      const int vectors = static_cast<int>((count + kLanes - 1) / kLanes);
      __m256i acc[kVectors];
      unroll<kVectors>([&](auto v) GRISTMILL_INLINE { acc[v] = bias; });
      const std::int32_t* row_weights = weights;
      for (std::size_t row = 0; row < layer.groups; ++row, row_weights += layer.group_vectors) {
        unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
          if (v < vectors) acc[v] = add_row<kPairs>(layer, from, *windows++, row_weights, acc[v]);
        });
      }
      finish(acc, position, count);
      position += count;
    }
  }
}

template <int kPairs>
void convolve(const DepthwiseGatherJob& job) {
  const Layer layer(job);
  const auto& constants = *static_cast<const EpilogueS8*>(job.epilogue);
  const EpilogueAvx2 epilogue(constants);
  const bool is_byte = constants.type == OutputType::u8 || constants.type == OutputType::s8;
  const std::size_t plane_bytes = job.positions * (is_byte ? 1 : 4);
  const auto* source = static_cast<const std::uint8_t*>(job.source);
  const auto* weights = static_cast<const std::int32_t*>(job.weights);
  auto* out = static_cast<std::uint8_t*>(job.out);
  std::size_t m = 0;
  for (std::size_t plane = 0; plane < job.planes; ++plane, source += job.in_plane) {
    for (std::size_t i = 0; i < job.multiplier; ++i, ++m) {
      OneChannelAvx2 channel(constants, m);
      const __m256i bias = channel.bias_all;
      channel.bias_all = _mm256_setzero_si256();
      convolve_plane<kPairs>(job, layer, source, weights, bias,
                             [&](const __m256i* acc, std::size_t at, std::size_t count) GRISTMILL_INLINE {
                               epilogue.store<kVectors>(acc, channel, out, at, count);
                             });
      weights += job.groups * job.group_vectors;
      out += plane_bytes;
    }
  }
}

void gather_s8(const DepthwiseGatherJob& job) {
  job.group_vectors == 2 ? convolve<2>(job) : convolve<0>(job);
}

}  // namespace

void install_depthwise_gather_s8_avx2(DepthwiseKernels& slots) {
  slots.gather_s8 = {kLanes, kVectors, 2, kMost, kMostStrided, gather_s8};
}

}  // namespace gristmill
