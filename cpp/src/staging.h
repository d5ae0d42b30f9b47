#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gristmill/conv.h"

namespace gristmill {

/// Where the elements that a convolution reads of one input plane lie (conv.h explains staging):
///
///     tap t of output pixel (y, x)  is at  y * row_step + x + tap_offset[t]
///
/// Staged planes are split into phases, (row mod stride) x (column mod stride) of the padded plane, of which
/// those that a tap uses are stored one after the other as [phase_rows][phase_columns]:
///
///     stride 2:   a b a b a b        a a a    b b b    c c c    d d d
///                 c d c d c d   ->   a a a    b b b    c c c    d d d
///                 a b a b a b
///                 c d c d c d
class PlaneLayout {
 public:
  /// Room that staged storage leaves behind its last plane, so that kernels may load whole vectors.
  static constexpr std::size_t kSlack = 64;

  /// A plane, and the end of the memory that may be touched around it.
  template <class T>
  struct Span {
    T* plane;
    T* end;
  };

  /// Lays out a plane of height x width for that convolution; reuses the memory of the layout before.
  void lay_out(const PackedConv& weights, std::size_t height, std::size_t width);

  bool staged() const { return staged_; }
  std::size_t out_rows() const { return out_rows_; }
  std::size_t out_columns() const { return out_columns_; }
  std::size_t positions() const { return out_rows_ * out_columns_; }
  std::size_t row_step() const { return row_step_; }
  std::size_t plane_elements() const { return plane_elements_; }
  const std::vector<std::size_t>& tap_offset() const { return tap_offset_; }
  /// One more than the greatest offset from a plane's start that any tap reads.
  std::size_t reach() const { return reach_; }

  /// Copies a plane of the input into its staged form. `fill` is what padding reads; every byte is XORed with
  /// `flip`. Elements before `source.end` may be read, and those before `staged.end` overwritten.
  void stage(Span<const std::uint8_t> source, std::uint8_t fill, std::uint8_t flip,
             Span<std::uint8_t> staged) const;
  void stage(Span<const float> source, Span<float> staged) const;
  /// The same for a plane of quads.
  void stage(Span<const std::uint32_t> source, std::uint32_t fill, Span<std::uint32_t> staged) const;

 private:
  void lay_out_in_place(const ConvKernel& kernel);
  void lay_out_staged(const ConvKernel& kernel);
  std::size_t phase_index(std::size_t row, std::size_t column);
  template <class T, class Map>
  void stage_by_stride(Span<const T> source, T fill, Span<T> staged, Map map) const;
  /// `step` is the stride of columns, or 0 for any.
  template <std::size_t step, class T, class Map>
  void stage_phases(Span<const T> source, T fill, Span<T> staged, Map map) const;

  /// Of each row of a phase, columns [left, right) come from the input, the first of them from its `source`.
  struct Phase {
    std::size_t row, column;
    std::size_t left, right, source;
  };

  std::size_t height_ = 0, width_ = 0, out_rows_ = 0, out_columns_ = 0;
  std::size_t stride_h_ = 1, stride_w_ = 1, dilation_h_ = 1, dilation_w_ = 1, pad_top_ = 0, pad_left_ = 0;
  bool staged_ = false;
  std::size_t row_step_ = 0, plane_elements_ = 0, reach_ = 0;
  std::size_t phase_rows_ = 0, phase_columns_ = 0;
  std::vector<Phase> phases_;
  std::vector<std::size_t> tap_offset_;
};

}  // namespace gristmill
