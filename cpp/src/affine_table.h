#pragma once

#include <cstddef>
#include <vector>

#include "aligned_buffer.h"
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

  /// Lays the channels out as lanes, for data whose element i has channel i / inner % channels.
  void expand(std::size_t inner);
  bool expanded() const { return period_ != 0; }
  /// The lanes for data that begins at element `first`.
  AffineLanes lanes(std::size_t first) const;

 private:
  std::vector<Affine> channels_;
  AlignedBuffer scale_, steps_, offset_, zero_point_;  // the lanes
  std::size_t period_ = 0;
};

}  // namespace gristmill
