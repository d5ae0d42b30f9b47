#include "staging.h"

#include <algorithm>
#include <cstring>

#include "checked_size.h"

namespace gristmill {
namespace {

/// The step is a constant in the loops that matter, which lets compilers vectorize them.
void copy_bytes(const std::uint8_t* source, std::size_t step, std::uint8_t* out, std::size_t count,
                std::uint8_t flip) {
  if (step == 1 && flip == 0) {
    std::memcpy(out, source, count);
  } else if (step == 1) {
    for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::uint8_t>(source[i] ^ flip);
  } else if (step == 2) {
    for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::uint8_t>(source[2 * i] ^ flip);
  } else {
    for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::uint8_t>(source[i * step] ^ flip);
  }
}

void copy_floats(const float* source, std::size_t step, float* out, std::size_t count) {
  if (step == 1) {
    std::memcpy(out, source, count * sizeof(float));
  } else if (step == 2) {
    for (std::size_t i = 0; i < count; ++i) out[i] = source[2 * i];
  } else {
    for (std::size_t i = 0; i < count; ++i) out[i] = source[i * step];
  }
}

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
  if (found == phases_.end()) phases_.push_back({row, column});
  return index;
}

template <class T, class Copy>
void PlaneLayout::stage_phases(const T* plane, T fill, T* staged, Copy copy) const {
  for (const Phase& phase : phases_) {
    const std::size_t left = std::min(count_below(pad_left_, phase.column, stride_w_), phase_columns_);
    const std::size_t right =
        std::clamp(count_below(width_ + pad_left_, phase.column, stride_w_), left, phase_columns_);
    for (std::size_t r = 0; r < phase_rows_; ++r, staged += phase_columns_) {
      const std::size_t row = r * stride_h_ + phase.row;
      if (row < pad_top_ || row >= pad_top_ + height_) {
        std::fill_n(staged, phase_columns_, fill);
        continue;
      }
      const T* source = plane + (row - pad_top_) * width_;
      std::fill_n(staged, left, fill);
      if (right > left)
        copy(source + (left * stride_w_ + phase.column - pad_left_), stride_w_, staged + left, right - left);
      std::fill_n(staged + right, phase_columns_ - right, fill);
    }
  }
}

void PlaneLayout::stage(const std::uint8_t* plane, std::uint8_t fill, std::uint8_t flip,
                        std::uint8_t* staged) const {
  stage_phases(plane, static_cast<std::uint8_t>(fill ^ flip), staged,
               [flip](const std::uint8_t* source, std::size_t step, std::uint8_t* out, std::size_t count) {
                 copy_bytes(source, step, out, count, flip);
               });
}

void PlaneLayout::stage(const float* plane, float* staged) const {
  stage_phases(plane, 0.0f, staged, copy_floats);
}

}  // namespace gristmill
