#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "depthwise_kernels.h"
#include "epilogue_avx512vnni.h"
#include "kernels/unroll.h"

/// One byte permutation of two registers puts the four taps of sixteen pixels side by side, as vpdpbusd wants
/// them.
namespace gristmill {
namespace {

constexpr int kVectors = 4;
constexpr std::size_t kLanes = 16;
constexpr std::size_t kBlock = kLanes * kVectors;
constexpr std::uint64_t kAllButLast = ~std::uint64_t{0} >> 1;

/// What all planes of a call have in common.
struct Layer {
  const __m512i* indices;
  std::size_t groups;
  __m512i padding, flip;

  explicit Layer(const DepthwiseGatherJob& job)
      : indices(static_cast<const __m512i*>(job.indices)),
        groups(job.groups),
        padding(_mm512_set1_epi8(static_cast<char>(job.padding))),
        flip(_mm512_set1_epi8(static_cast<char>(job.flip))) {}
};

struct Windows {
  __m512i a, b;

  [[gnu::always_inline]] Windows(const Layer& layer, const std::uint8_t* source, const GatherWindows& at)
      : a(_mm512_xor_si512(_mm512_loadu_si512(source + at.first[0]), layer.flip)),
        b(_mm512_xor_si512(_mm512_mask_loadu_epi8(layer.padding, kAllButLast, source + at.first[1]),
                           layer.flip)) {}
  [[gnu::always_inline]] __m512i quads(const __m512i* indices) const {
    return _mm512_permutex2var_epi8(a, _mm512_load_si512(indices), b);
  }
};

/// Adds all groups of a block's first `vectors` vectors, which are all of them where `kWhole`.
template <bool kShared, bool kWhole>
[[gnu::always_inline]] inline void sum_block(const Layer& layer, const std::uint8_t* source,
                                             const std::int8_t* weights, const GatherWindows*& windows,
                                             int vectors, __m512i (&acc)[kVectors]) {
  for (std::size_t group = 0; group < layer.groups; ++group, weights += 4) {
    std::int32_t four;
    __builtin_memcpy(&four, weights, 4);
    const __m512i weight = _mm512_set1_epi32(four);
    if constexpr (kShared) {
      const Windows pair(layer, source, *windows);
      const __m512i* indices = layer.indices + windows++->indices;
      unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
        if (kWhole || v < vectors) acc[v] = _mm512_dpbusd_epi32(acc[v], pair.quads(indices + v), weight);
      });
    } else {
      unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
        if (!kWhole && v >= vectors) return;
        const Windows pair(layer, source, *windows);
        acc[v] = _mm512_dpbusd_epi32(acc[v], pair.quads(layer.indices + windows++->indices), weight);
      });
    }
  }
}

/// finish(acc, position, count) sends a block, bias included, through the epilogue.
template <bool kShared, class Finish>
[[gnu::always_inline]] inline void convolve_plane(const DepthwiseGatherJob& job, const Layer& layer,
                                                  const std::uint8_t* source, const std::int8_t* weights,
                                                  __m512i bias, Finish finish) {
  std::size_t position = 0;
  for (std::size_t s = 0; s < job.segment_count; ++s) {
    const GatherSegment& segment = job.segments[s];
    const GatherWindows* windows = segment.windows;
    const std::uint8_t* from = source + segment.source;
    for (std::size_t b = 0; b < segment.block_count; ++b) {
      const std::size_t count = segment.blocks[b].pixels;
      __m512i acc[kVectors];
      unroll<kVectors>([&](auto v) GRISTMILL_INLINE { acc[v] = bias; });
      if (count == kBlock) {
        sum_block<kShared, true>(layer, from, weights, windows, kVectors, acc);
      } else {
        const int vectors = static_cast<int>((count + kLanes - 1) / kLanes);
        sum_block<kShared, false>(layer, from, weights, windows, vectors, acc);
      }
      finish(acc, position, count);
      position += count;
    }
  }
}

template <bool kShared>
void convolve(const DepthwiseGatherJob& job) {
  const Layer layer(job);
  const auto& constants = *static_cast<const EpilogueS8*>(job.epilogue);
  const EpilogueAvx512 epilogue(constants);
  const bool is_byte = constants.type == OutputType::u8 || constants.type == OutputType::s8;
  const std::size_t plane_bytes = job.positions * (is_byte ? 1 : 4);
  const auto* source = static_cast<const std::uint8_t*>(job.source);
  const auto* weights = static_cast<const std::int8_t*>(job.weights);
  auto* out = static_cast<std::uint8_t*>(job.out);
  std::size_t m = 0;
  for (std::size_t plane = 0; plane < job.planes; ++plane, source += job.in_plane) {
    for (std::size_t i = 0; i < job.multiplier; ++i, ++m) {
      OneChannelAvx512 channel(constants, m);
      const __m512i bias = channel.bias_all;
      channel.bias_all = _mm512_setzero_si512();
      convolve_plane<kShared>(job, layer, source, weights, bias,
                              [&](const __m512i* acc, std::size_t at, std::size_t count) GRISTMILL_INLINE {
                                epilogue.store<kVectors>(acc, channel, out, at, count);
                              });
      weights += 4 * job.groups;
      out += plane_bytes;
    }
  }
}

void gather_s8(const DepthwiseGatherJob& job) { job.shared ? convolve<true>(job) : convolve<false>(job); }

}  // namespace

void install_depthwise_vbmi_avx512vnni(DepthwiseKernels& slots) {
  slots.gather_s8 = {kLanes, kVectors, 4, SIZE_MAX, SIZE_MAX, gather_s8};
}

}  // namespace gristmill
