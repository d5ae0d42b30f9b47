#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gristmill/conv.h"
#include "panel_kernels.h"

namespace gristmill {

/// The planes of a convolution whose rows are as long as those of its output. Each tap then reads the whole
/// plane of output positions from one stretch of memory, and padding is what a mask leaves out:
///
///     3 x 3 pixels, padded by one      tap (0, 0) of positions 0 .. 8      mask
///     a b c                            ? ? ?                               - - -
///     d e f                            ? a b                               - x x
///     g h i                            ? d e                               - x x
///
///     tap t of output position p  is at  p + tap_offset[t],  or padding
///
/// With stride 1 these are the planes of the input, which nobody copies. Otherwise planes are staged as one
/// for each (row mod stride, column mod stride) of the input that a tap uses, without their padding:
///
///     stride 2:   a b a b a b        a a a    b b b    c c c    d d d
///                 c d c d c d   ->   a a a    b b b    c c c    d d d
class ShiftedPlanes {
 public:
  static constexpr std::size_t kMostTaps = kMostShiftTaps;

  /// Lays out planes of height x width for that convolution; reuses the memory of the layout before. False if
  /// rows of the input are longer than those of the output, if its own planes serve as they are, or if taps
  /// read nothing but padding.
  bool lay_out(const PackedConv& weights, std::size_t height, std::size_t width);

  /// Whether planes are not those of the input.
  bool staged() const { return staged_; }
  std::size_t plane_elements() const { return plane_elements_; }
  const std::vector<std::ptrdiff_t>& tap_offset() const { return tap_offset_; }

  /// masks[tap][kMaskStep]: 0xFF for each of `count` output positions from `first` on whose tap is inside
  /// the plane, 0 elsewhere.
  void fill_masks(std::size_t first, std::size_t count, std::uint8_t* masks) const;

  /// Copies a plane of the input into its staged form. Elements before `source_end` may be read, and those
  /// before `staged_end` overwritten.
  template <class T>
  void stage(const PanelKernels& kernels, const T* source, const T* source_end, T* staged,
             T* staged_end) const;

 private:
  /// One axis of one tap: output extents [begin, end) read from index + shift of a phase.
  struct Reach {
    std::size_t phase, begin, end;
    std::ptrdiff_t shift;
  };
  struct Axis {
    std::size_t size, out, stride, dilation, pad, kernel;

    /// Elements of a phase.
    std::size_t extent(std::size_t phase) const;
    void find_reaches(std::vector<Reach>& result) const;
  };

  /// Rows and columns of the input that are `row` and `column` modulo the stride.
  struct Phase {
    std::size_t row, column, rows, columns;
  };

  template <std::size_t step, class T>
  void stage_phase(const Phase& phase, const T* source, const T* source_end, T* staged, T* staged_end) const;
  /// Stages phases [first, last), the even and the odd columns of the same rows or one of them.
  template <class T>
  void split(const PanelKernels& kernels, std::size_t first, std::size_t last, const T* source,
             T* staged) const;
  void add_tap(const Reach& row, const Reach& column);

  Axis rows_{}, columns_{};
  bool staged_ = false;
  std::size_t phase_rows_ = 0, phase_elements_ = 0, plane_elements_ = 0;
  std::vector<Reach> row_reach_, column_reach_;
  std::vector<Phase> phases_;
  std::vector<std::ptrdiff_t> tap_offset_;
};

}  // namespace gristmill
