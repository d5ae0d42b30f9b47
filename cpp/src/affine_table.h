#pragma once

#include <cstddef>
#include <vector>

#include "gristmill/quantize.h"
#include "quantize_kernels.h"

namespace gristmill {

/// Checked QuantParams in the form the kernels take.
class AffineTable {
 public:
  /// `channels` is the extent of params.axis, 1 without one. Throws Error(shape) if the counts do not match,
  /// Error(argument) for a scale or zero point out of range.
  AffineTable(const QuantParams& params, QuantType type, std::size_t channels);

  const Affine& channel(std::size_t index) const { return channels_[index]; }

  /// Lays the channels out for data whose element i has channel i / inner % channels: lane i serves element i
  /// modulo lane_count(), a multiple of inner * channels that is long enough to keep kernel calls rare.
  void expand(std::size_t inner);
  std::size_t lane_count() const { return scale_.size(); }
  AffineLanes lanes(std::size_t first) const;

 private:
  std::vector<Affine> channels_;
  std::vector<float> scale_, steps_, offset_;
  std::vector<std::int32_t> zero_point_;
};

}  // namespace gristmill
