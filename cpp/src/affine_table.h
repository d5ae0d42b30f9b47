#pragma once

#include <cstddef>
#include <vector>

#include "aligned_buffer.h"
#include "gristmill/quantize.h"
#include "quantize_kernels.h"

namespace gristmill {

/// The map of quantize_* for a scale and zero point that are in range, those of u8.
Affine division_map(float scale, std::int32_t zero_point);

/// Checked QuantParams in the form the kernels take: an array for each member of Affine.
class AffineTable {
 public:
  /// `channels` is the extent of params.axis, 1 without one. Throws Error(shape) if the counts do not match,
  /// Error(argument) for a scale or zero point out of range.
  AffineTable(const QuantParams& params, QuantType type, std::size_t channels);

  /// Fills in what only quantize_* needs: steps and offset.
  void prepare_division();

  Affine channel(std::size_t index) const {
    return {columns_.scale[index], columns_.steps[index], columns_.offset[index], columns_.zero_point[index],
            flip_};
  }

  /// Lays the channels out as lanes, for data whose element i has channel i / inner % channels. From then on
  /// there are lanes and no channels.
  void expand(std::size_t inner);
  bool expanded() const { return period_ != 0; }
  /// The lanes for data that begins at element `first`.
  AffineLanes lanes(std::size_t first) const;

 private:
  struct Columns {
    float *scale, *steps, *offset;
    std::int32_t* zero_point;
  };
  /// Parts `buffer` into columns of `count` entries.
  static Columns reserve(AlignedBuffer& buffer, std::size_t count);

  std::size_t channels_, period_ = 0;
  std::uint8_t flip_;
  bool divides_ = false;
  AlignedBuffer buffer_;
  Columns columns_;
};

}  // namespace gristmill
