#pragma once

#include <cstddef>
#include <cstdint>

#include "aligned_buffer.h"
#include "kernel_table.h"
#include "packed_weights.h"

namespace gristmill {

/// Weights of a depthwise convolution, one small kernel for each output channel, as a level's kernel reads
/// them.
class DepthwiseWeights {
 public:
  DepthwiseWeights(const WeightView<std::int8_t>& weights, const KernelTable& kernels);
  DepthwiseWeights(const WeightView<float>& weights, const KernelTable& kernels);

  const void* at(std::size_t channel) const { return storage_.data<std::byte>() + channel * channel_bytes_; }
  std::size_t bytes() const { return storage_.bytes(); }
  const WeightSums& sums() const { return sums_; }

 private:
  std::size_t channel_bytes_;
  AlignedBuffer storage_;
  WeightSums sums_;
};

}  // namespace gristmill
