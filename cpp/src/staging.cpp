#include "staging.h"

#include <algorithm>
#include <array>

#include "checked_size.h"
#include "strided_copy.h"

namespace gristmill {
namespace {

/// The count of i >= 0 with i * step + offset < bound.
std::size_t count_below(std::size_t bound, std::size_t offset, std::size_t step) {
  return bound <= offset ? 0 : ceil_div(bound - offset, step);
}

template <class T>
using Span = PlaneLayout::Span<T>;

/// Rows, `step` apart, of which `length` elements fit.
template <class T>
std::size_t fitting(Span<T> span, std::size_t length, std::size_t step) {
  const auto room = static_cast<std::size_t>(span.end - span.plane);
  return room < length ? 0 : (room - length) / step + 1;
}

/// Rows of a phase that the input has, and how they are staged.
struct StagedRows {
  std::size_t count, source_step, stride;
  std::size_t columns, left, right;  ///< [left, right) come from the input
};

/// `step` is the stride, or 0 for any. As many rows as may be are copied in whole blocks.
template <std::size_t step, class T, class Map>
void stage_rows(const StagedRows rows, Span<const T> source, T fill, Span<T> staged, Map map) {
  const std::size_t count = rows.right - rows.left, after = rows.columns - rows.right;
  std::size_t r = 0;
  if constexpr (step != 0) {
    std::array<T, kCopyBlock> padding;
    padding.fill(fill);
    const std::size_t whole = std::min(fitting(source, round_up(count, kCopyBlock) * step, rows.source_step),
                                       fitting(staged, rows.columns + kCopyBlock, rows.columns));
    for (; r < std::min(whole, rows.count); ++r) {
      fill_blocks(padding, staged.plane, rows.left);
      copy_blocks<step>(source.plane, staged.plane + rows.left, count, map);
      fill_blocks(padding, staged.plane + rows.right, after);
      source.plane += rows.source_step;
      staged.plane += rows.columns;
    }
  }
  for (; r < rows.count; ++r) {
    T* const middle = staged.plane + rows.left;
    fill_run(fill, staged.plane, staged.end, rows.left);
    if constexpr (step == 0) {
      for (std::size_t i = 0; i < count; ++i) middle[i] = map(source.plane[i * rows.stride]);
    } else {
      copy_run<step>(source.plane, source.end, middle, staged.end, count, map);
    }
    fill_run(fill, middle + count, staged.end, after);
    source.plane += rows.source_step;
    staged.plane += rows.columns;
  }
}

}  // namespace

void PlaneLayout::lay_out(const PackedConv& weights, std::size_t height, std::size_t width) {
  const auto size = [](std::int64_t value) { return static_cast<std::size_t>(value); };
  const ConvAttributes& a = weights.attributes();
  const auto out = weights.output_size(height, width);
  height_ = height;
  width_ = width;
  out_rows_ = out[0];
  out_columns_ = out[1];
  stride_h_ = size(a.stride_h);
  stride_w_ = size(a.stride_w);
  dilation_h_ = size(a.dilation_h);
  dilation_w_ = size(a.dilation_w);
  pad_top_ = size(a.pad_top);
  pad_left_ = size(a.pad_left);
  const bool padded = (a.pad_top | a.pad_left | a.pad_bottom | a.pad_right) != 0;
  staged_ = padded || (stride_w_ > 1 && out_columns_ > 1);
  tap_offset_.clear();
  phases_.clear();
  staged_ ? lay_out_staged(weights.kernel()) : lay_out_in_place(weights.kernel());
  reach_ =
      *std::max_element(tap_offset_.begin(), tap_offset_.end()) + (out_rows_ - 1) * row_step_ + out_columns_;
}

void PlaneLayout::lay_out_in_place(const ConvKernel& kernel) {
  row_step_ = stride_h_ * width_;
  plane_elements_ = height_ * width_;
  for (std::size_t kh = 0; kh < kernel.height; ++kh) {
    for (std::size_t kw = 0; kw < kernel.width; ++kw)
      tap_offset_.push_back(kh * dilation_h_ * width_ + kw * dilation_w_);
  }
}

void PlaneLayout::lay_out_staged(const ConvKernel& kernel) {
  phase_rows_ = out_rows_;
  phase_columns_ = out_columns_;
  for (std::size_t kh = 0; kh < kernel.height; ++kh)
    phase_rows_ = std::max(phase_rows_, out_rows_ + kh * dilation_h_ / stride_h_);
  for (std::size_t kw = 0; kw < kernel.width; ++kw)
    phase_columns_ = std::max(phase_columns_, out_columns_ + kw * dilation_w_ / stride_w_);
  row_step_ = phase_columns_;
  const std::size_t phase_elements = checked_product({phase_rows_, phase_columns_}, "padding");
  for (std::size_t kh = 0; kh < kernel.height; ++kh) {
    for (std::size_t kw = 0; kw < kernel.width; ++kw) {
      const std::size_t row = kh * dilation_h_, column = kw * dilation_w_;
      const std::size_t phase = phase_index(row % stride_h_, column % stride_w_);
      tap_offset_.push_back(phase * phase_elements + row / stride_h_ * phase_columns_ + column / stride_w_);
    }
  }
  plane_elements_ = checked_product({phases_.size(), phase_elements}, "padding");
}

std::size_t PlaneLayout::phase_index(std::size_t row, std::size_t column) {
  const auto same = [&](const Phase& phase) { return phase.row == row && phase.column == column; };
  const auto found = std::find_if(phases_.begin(), phases_.end(), same);
  const auto index = static_cast<std::size_t>(found - phases_.begin());
  if (found != phases_.end()) return index;
  const std::size_t left = std::min(count_below(pad_left_, column, stride_w_), phase_columns_);
  const std::size_t right =
      std::clamp(count_below(width_ + pad_left_, column, stride_w_), left, phase_columns_);
  phases_.push_back({row, column, left, right, right > left ? left * stride_w_ + column - pad_left_ : 0});
  return index;
}

template <std::size_t step, class T, class Map>
void PlaneLayout::stage_phases(Span<const T> source, T fill, Span<T> staged, Map map) const {
  T* out = staged.plane;
  for (const Phase& phase : phases_) {
    T* const end = out + phase_rows_ * phase_columns_;
    const std::size_t bottom = std::min(count_below(height_ + pad_top_, phase.row, stride_h_), phase_rows_);
    const std::size_t top =
        phase.right == phase.left ? bottom : std::min(count_below(pad_top_, phase.row, stride_h_), bottom);
    fill_run(fill, out, staged.end, top * phase_columns_);
    out += top * phase_columns_;
    if (top < bottom) {
      const std::size_t row = top * stride_h_ + phase.row - pad_top_;
      const T* from = source.plane + row * width_ + phase.source;
      const StagedRows rows{bottom - top,   stride_h_ * width_, stride_w_,
                            phase_columns_, phase.left,         phase.right};
      stage_rows<step>(rows, Span<const T>{from, source.end}, fill, Span<T>{out, staged.end}, map);
      out += rows.count * phase_columns_;
    }
    fill_run(fill, out, staged.end, static_cast<std::size_t>(end - out));
    out = end;
  }
}

template <class T, class Map>
void PlaneLayout::stage_by_stride(Span<const T> source, T fill, Span<T> staged, Map map) const {
  if (stride_w_ == 1)
    stage_phases<1>(source, fill, staged, map);
  else if (stride_w_ == 2)
    stage_phases<2>(source, fill, staged, map);
  else
    stage_phases<0>(source, fill, staged, map);
}

void PlaneLayout::stage(Span<const std::uint8_t> source, std::uint8_t fill, std::uint8_t flip,
                        Span<std::uint8_t> staged) const {
  const auto map = [flip](std::uint8_t byte) { return static_cast<std::uint8_t>(byte ^ flip); };
  stage_by_stride(source, map(fill), staged, map);
}

void PlaneLayout::stage(Span<const std::uint32_t> source, std::uint32_t fill,
                        Span<std::uint32_t> staged) const {
  stage_by_stride(source, fill, staged, [](std::uint32_t quad) { return quad; });
}

void PlaneLayout::stage(Span<const float> source, Span<float> staged) const {
  stage_by_stride(source, 0.0f, staged, [](float value) { return value; });
}

}  // namespace gristmill
