#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "depthwise_kernels.h"
#include "f32_avx512vnni.h"
#include "kernels/unroll.h"

namespace gristmill {
namespace {

constexpr std::size_t kLanes = 16;
constexpr __mmask16 kAllButLast = 0x7FFF;

/// Adds a kernel row of `taps` taps, or of kTaps where that is not 0.
template <int kTaps>
[[gnu::always_inline]] inline __m512 add_row(const DepthwiseGatherJob& job, const float* source,
                                             const float* weights, const GatherWindows& windows, __m512 sum) {
  const __m512 a = _mm512_loadu_ps(source + windows.first[0]);
  const __m512 b = _mm512_maskz_loadu_ps(kAllButLast, source + windows.first[1]);
  const auto* indices = static_cast<const __m512i*>(job.indices) + windows.indices;
  const auto add_tap = [&](std::size_t t) GRISTMILL_INLINE {
    const __m512 x = _mm512_permutex2var_ps(a, _mm512_load_si512(indices + t), b);
    sum = _mm512_fmadd_ps(x, _mm512_set1_ps(weights[t]), sum);
  };
  if constexpr (kTaps == 0)
    for (std::size_t t = 0; t < job.taps; ++t) add_tap(t);
  else
    unroll<kTaps>(add_tap);
  return sum;
}

template <int kGroups, int kTaps>
[[gnu::always_inline]] inline void convolve_plane(const DepthwiseGatherJob& job, const float* source,
                                                  const float* weights, __m512 bias, __m512 low, __m512 high,
                                                  float* out) {
  for (std::size_t s = 0; s < job.segment_count; ++s) {
    const GatherSegment& segment = job.segments[s];
    const GatherWindows* windows = segment.windows;
    const float* from = source + segment.source;
    for (std::size_t b = 0; b < segment.blocks; ++b) {
      __m512 sum = F32x16::zero();
      const auto add = [&](std::size_t row) GRISTMILL_INLINE {
        sum = add_row<kTaps>(job, from, weights + row * (kTaps == 0 ? job.taps : kTaps), windows[row], sum);
      };
      if constexpr (kGroups == 0) {
        for (std::size_t row = 0; row < job.groups; ++row) add(row);
        windows += job.groups;
      } else {
        unroll<kGroups>(add);
        windows += kGroups;
      }
      F32x16::store_first(out, F32x16::clamp(F32x16::add(sum, bias), low, high), segment.counts[b]);
      out += segment.counts[b];
    }
  }
}

template <int kGroups, int kTaps>
void convolve(const DepthwiseGatherJob& job) {
  const auto& epilogue = *static_cast<const EpilogueF32*>(job.epilogue);
  const __m512 low = _mm512_set1_ps(epilogue.low), high = _mm512_set1_ps(epilogue.high);
  const auto* source = static_cast<const float*>(job.source);
  const auto* weights = static_cast<const float*>(job.weights);
  auto* out = static_cast<float*>(job.out);
  const float* bias = epilogue.bias;
  for (std::size_t plane = 0; plane < job.planes; ++plane, source += job.in_plane) {
    for (std::size_t i = 0; i < job.multiplier; ++i) {
      convolve_plane<kGroups, kTaps>(job, source, weights, _mm512_set1_ps(*bias++), low, high, out);
      weights += job.groups * job.taps;
      out += job.positions;
    }
  }
}

void gather_f32(const DepthwiseGatherJob& job) {
  if (job.groups == 3 && job.taps == 3) return convolve<3, 3>(job);
  convolve<0, 0>(job);
}

}  // namespace

void install_depthwise_gather_avx512vnni(DepthwiseKernels& slots) {
  slots.gather_f32 = {kLanes, 1, gather_f32};
}

}  // namespace gristmill
