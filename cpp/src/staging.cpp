#include "staging.h"

#include <algorithm>

#include "checked_size.h"
#include "strided_copy.h"

namespace gristmill {
namespace {

/// The count of i >= 0 with i * step + offset < bound.
std::size_t count_below(std::size_t bound, std::size_t offset, std::size_t step) {
  return bound <= offset ? 0 : ceil_div(bound - offset, step);
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
    const std::size_t count = phase.right - phase.left;
    for (std::size_t r = 0; r < phase_rows_; ++r, out += phase_columns_) {
      const std::size_t row = r * stride_h_ + phase.row;
      if (row < pad_top_ || row >= pad_top_ + height_ || count == 0) {
        fill_run(fill, out, staged.end, phase_columns_);
        continue;
      }
      const T* from = source.plane + (row - pad_top_) * width_ + phase.source;
      fill_run(fill, out, staged.end, phase.left);
      if constexpr (step == 0) {
        for (std::size_t i = 0; i < count; ++i) out[phase.left + i] = map(from[i * stride_w_]);
      } else {
        copy_run<step>(from, source.end, out + phase.left, staged.end, count, map);
      }
      fill_run(fill, out + phase.right, staged.end, phase_columns_ - phase.right);
    }
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
