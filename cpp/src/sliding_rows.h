#pragma once

#include <cstddef>
#include <vector>

#include "gristmill/conv.h"
#include "panel_kernels.h"

namespace gristmill {

/// What the taps of a convolution read for one row of its output: a matrix [K][pitch] of which each row is
/// one tap of one channel, along the output.
///
/// It slides. Tap row i of the next row of the output is tap row i + step of this one, so the next matrix
/// begins `step` tap rows further on, where all but the last ones of each channel lie already. Those go where
/// the first ones of the channel behind were, which nobody reads any more:
///
///     two channels a and b, three tap rows, step 1
///
///     row y         a0 a1 a2 b0 b1 b2
///     row y + 1        a1 a2 a3 b1 b2 b3           a3 takes the place of b0
///
/// So an element of the input is copied once for each tap column, and not once for each tap.
class SlidingRows {
 public:
  /// Lays out rows of a plane of height x width for that convolution; reuses the memory of the layout before.
  void lay_out(const PackedConv& weights, std::size_t height, std::size_t width);

  /// Floats from one row of a matrix to the next, whole cache lines.
  std::size_t pitch() const { return pitch_; }
  /// Floats that the matrices of so many rows of the output take one after the other.
  std::size_t floats(std::size_t rows) const { return matrix_ + (rows - 1) * advance_; }
  /// Floats from the matrix of a row to that of the next.
  std::size_t advance() const { return advance_; }
  /// Floats of scratch that fill() needs, zeros at first.
  std::size_t scratch() const { return channels_ * row_scratch(tap_rows_); }

  /// The matrix of that row of the output, from the planes of a group. `slides`: whether that of the row
  /// before begins advance() floats before it.
  void fill(const PanelKernels& kernels, const float* planes, std::size_t row, bool slides, float* matrix,
            float* scratch) const;

 private:
  /// Columns of the padded plane that are equal modulo the stride. Of these, [left, right) are in the input,
  /// the first of them at its column `source`.
  struct Phase {
    std::size_t column, left, right, source;
  };
  struct Tap {
    std::size_t phase, shift;
  };

  std::size_t phase_of(std::size_t column);
  std::size_t row_scratch(std::size_t rows) const { return rows * phases_.size() * phase_pitch_; }
  void copy_taps(const float* phases, float* to) const;
  /// Copies some rows of a channel, dilation_h_ apart, to the scratch, split into their phases.
  void split(const PanelKernels& kernels, const float* from, std::size_t rows, float* to) const;

  std::size_t height_ = 0, width_ = 0, channels_ = 0;
  std::size_t stride_h_ = 1, stride_w_ = 1, dilation_h_ = 1, pad_top_ = 0, pad_left_ = 0;
  std::size_t tap_rows_ = 0, kept_rows_ = 0;  // of a matrix, and those that are there of the row before
  std::size_t columns_ = 0, pitch_ = 0, advance_ = 0, matrix_ = 0, phase_pitch_ = 0;
  std::vector<Phase> phases_;
  std::vector<Tap> taps_;  // of a tap row
};

}  // namespace gristmill
