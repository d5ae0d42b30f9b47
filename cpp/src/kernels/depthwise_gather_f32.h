#pragma once

#include <cstddef>

#include "depthwise_kernels.h"
#include "kernels/unroll.h"

/// The gathering f32 kernel of a level, for its vectors `V` and `Pair`s of windows:
///
///     const Pair pair(source, windows)    loads both; the last element of the second is 0
///     pair.pick(index)                    permutes both by a Pair::Index
///     Pair::keep(x, index)                x where the index, a mask, is not 0
///
/// Everything here is compiled by each level for itself.
namespace gristmill {
namespace {

/// The sums of a vector of pixels over a kernel of any extent.
template <class V, class Pair>
class AnyKernel {
 public:
  [[gnu::always_inline]] AnyKernel(const DepthwiseGatherJob& job, const float* weights)
      : indices_(static_cast<const typename Pair::Index*>(job.indices)),
        weights_(weights),
        rows_(job.groups),
        taps_(job.group_vectors) {}

  [[gnu::always_inline]] std::size_t rows() const { return rows_; }

  [[gnu::always_inline]] typename V::Vector gather(const float* source, const GatherWindows* windows) const {
    auto sum = V::zero();
    const float* weight = weights_;
    for (std::size_t row = 0; row < rows_; ++row) {
      const Pair pair(source, windows[row]);
      const auto* index = indices_ + windows[row].indices;
      for (std::size_t tap = 0; tap < taps_; ++tap)
        sum = V::fma(pair.pick(index[tap]), V::broadcast(weight++), sum);
    }
    return sum;
  }

  [[gnu::always_inline]] typename V::Vector load(const float* source, const GatherWindows* windows) const {
    auto sum = V::zero();
    const auto* masks = indices_ + windows[0].indices;
    for (std::size_t tap = 0; tap < taps_; ++tap) {
      auto column = V::zero();
      for (std::size_t row = 0; row < rows_; ++row)
        column = V::fma(V::load(source + windows[row].first[0] + tap),
                        V::broadcast(weights_ + row * taps_ + tap), column);
      sum = V::add(sum, Pair::keep(column, masks[tap]));
    }
    return sum;
  }

 private:
  const typename Pair::Index* indices_;
  const float* weights_;
  std::size_t rows_, taps_;
};

/// The same for a kernel of kSize x kSize, with weights in registers.
template <class V, class Pair, int kSize>
class SquareKernel {
 public:
  [[gnu::always_inline]] SquareKernel(const DepthwiseGatherJob& job, const float* weights)
      : indices_(static_cast<const typename Pair::Index*>(job.indices)) {
    unroll<kSize * kSize>([&](auto i) GRISTMILL_INLINE { weights_[i] = V::broadcast(weights + i); });
  }

  [[gnu::always_inline]] std::size_t rows() const { return kSize; }

  [[gnu::always_inline]] typename V::Vector gather(const float* source, const GatherWindows* windows) const {
    auto sum = V::zero();
    unroll<kSize>([&](auto row) GRISTMILL_INLINE {
      const Pair pair(source, windows[row]);
      const auto* index = indices_ + windows[row].indices;
      unroll<kSize>([&](auto tap) GRISTMILL_INLINE {
        sum = V::fma(pair.pick(index[tap]), weights_[row * kSize + tap], sum);
      });
    });
    return sum;
  }

  [[gnu::always_inline]] typename V::Vector load(const float* source, const GatherWindows* windows) const {
    typename V::Vector column[kSize];
    unroll<kSize>([&](auto tap) GRISTMILL_INLINE { column[tap] = V::zero(); });
    unroll<kSize>([&](auto row) GRISTMILL_INLINE {
      const float* from = source + windows[row].first[0];
      unroll<kSize>([&](auto tap) GRISTMILL_INLINE {
        column[tap] = V::fma(V::load(from + tap), weights_[row * kSize + tap], column[tap]);
      });
    });
    const auto* masks = indices_ + windows[0].indices;
    auto sum = Pair::keep(column[0], masks[0]);
    unroll<kSize - 1>([&](auto i)
                          GRISTMILL_INLINE { sum = V::add(sum, Pair::keep(column[i + 1], masks[i + 1])); });
    return sum;
  }

 private:
  const typename Pair::Index* indices_;
  typename V::Vector weights_[kSize * kSize];
};

template <class V, class Kernel>
void gather_planes(const DepthwiseGatherJob& job) {
  const auto& epilogue = *static_cast<const EpilogueF32*>(job.epilogue);
  const auto low = V::broadcast(&epilogue.low), high = V::broadcast(&epilogue.high);
  const auto* weights = static_cast<const float*>(job.weights);
  auto* out = static_cast<float*>(job.out);
  for (std::size_t m = 0, planes = job.planes * job.multiplier; m < planes; ++m, out += job.positions) {
    const float* source = static_cast<const float*>(job.source) + m / job.multiplier * job.in_plane;
    const Kernel kernel(job, weights + m * job.groups * job.group_vectors);
    const auto bias = V::broadcast(epilogue.bias + m);
    std::size_t at = 0;
    for (std::size_t s = 0; s < job.segment_count; ++s) {
      const GatherSegment& segment = job.segments[s];
      const GatherWindows* windows = segment.windows;
      for (std::size_t b = 0; b < segment.block_count; ++b, windows += kernel.rows()) {
        const GatherBlock block = segment.blocks[b];
        const float* from = source + segment.source;
        const auto sum = block.direct ? kernel.load(from, windows) : kernel.gather(from, windows);
        const auto result = V::clamp(V::add(sum, bias), low, high);
        // Lanes beyond the block are overwritten by the next one.
        if (at + V::kWidth <= job.positions)
          V::store(out + at, result);
        else
          V::store_first(out + at, result, block.pixels);
        at += block.pixels;
      }
    }
  }
}

template <class V, class Pair>
void gather_f32(const DepthwiseGatherJob& job) {
  if (job.groups == 3 && job.group_vectors == 3) return gather_planes<V, SquareKernel<V, Pair, 3>>(job);
  gather_planes<V, AnyKernel<V, Pair>>(job);
}

}  // namespace
}  // namespace gristmill
