#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "aligned_buffer.h"
#include "depthwise_plan.h"
#include "gristmill/conv.h"
#include "kernel_table.h"
#include "packed_weights.h"

namespace gristmill {

/// Weights of a depthwise convolution, one small kernel for each output channel, as a level's kernels read
/// them, and the plans by which they were used.
class DepthwiseWeights {
 public:
  DepthwiseWeights(const WeightView<std::int8_t>& weights, ConvKernel kernel, const KernelTable& kernels);
  DepthwiseWeights(const WeightView<float>& weights, ConvKernel kernel, const KernelTable& kernels);

  /// Of an output channel, for the kernels of staged planes, of gathered ones, and of strips.
  const void* staged(std::size_t channel) const {
    return staged_.data<std::byte>() + channel * staged_bytes_;
  }
  const void* gathered(std::size_t channel) const {
    const AlignedBuffer& weights = is_f32_ ? staged_ : gathered_;
    return weights.data<std::byte>() + channel * gathered_bytes_;
  }
  const void* strips(std::size_t channel) const {
    const AlignedBuffer& weights = is_f32_ ? staged_ : strips_;
    return weights.data<std::byte>() + channel * strips_bytes_;
  }
  std::size_t bytes() const { return staged_.bytes() + gathered_.bytes() + strips_.bytes(); }
  const WeightSums& sums() const { return sums_; }

  /// The plan for that geometry, null where planes have to be staged: made by the first of any number of
  /// calls, and kept for the next ones while only a few geometries take turns.
  std::shared_ptr<const DepthwisePlan> plan(const DepthwiseGeometry& geometry,
                                            const GatherKernel& kernel) const;

 private:
  struct KnownPlan {
    DepthwiseGeometry geometry;
    std::shared_ptr<const DepthwisePlan> plan;
  };

  bool is_f32_;
  std::size_t staged_bytes_, gathered_bytes_, strips_bytes_;
  AlignedBuffer staged_, gathered_, strips_;
  WeightSums sums_;
  mutable std::mutex mutex_;
  mutable std::vector<KnownPlan> plans_;  // the last used one first
};

}  // namespace gristmill
