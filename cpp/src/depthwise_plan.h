#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "aligned_buffer.h"
#include "depthwise_kernels.h"

namespace gristmill {

/// What decides where the taps of a depthwise convolution are.
struct DepthwiseGeometry {
  std::size_t height, width, out_rows, out_columns;
  std::size_t kernel_rows, kernel_columns;
  std::size_t stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
  bool operator==(const DepthwiseGeometry&) const = default;
};

/// Windows and index vectors for a gathering kernel (depthwise_kernels.h), for one geometry. Immutable.
///
/// Blocks follow the output, which is contiguous, across row ends. A plane of many is cut into segments of
/// whole rows that end with a block, of which all but the first and last ones are alike and stored once.
/// Equal index vectors are stored once too, so that a plan stays in the first-level cache.
class DepthwisePlan {
 public:
  /// Null where some block's taps are too far apart for its windows, and where staging is faster.
  static std::unique_ptr<const DepthwisePlan> make(const DepthwiseGeometry& geometry,
                                                   const GatherKernel& kernel);

  std::span<const GatherSegment> segments() const { return segments_; }
  const void* indices() const { return indices_.data(); }
  bool shared() const { return shared_; }
  /// Elements that windows reach beyond the end of a plane.
  std::size_t overrun() const { return overrun_; }

 private:
  class Builder;
  DepthwisePlan() = default;

  std::vector<GatherSegment> segments_;
  std::vector<std::vector<GatherWindows>> windows_;
  std::vector<std::vector<GatherBlock>> blocks_;
  AlignedBuffer indices_;
  bool shared_ = false;
  std::size_t overrun_ = 0;
};

}  // namespace gristmill
