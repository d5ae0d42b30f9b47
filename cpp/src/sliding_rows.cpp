#include "sliding_rows.h"

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

void SlidingRows::lay_out(const PackedConv& weights, std::size_t height, std::size_t width) {
  const auto size = [](std::int64_t value) { return static_cast<std::size_t>(value); };
  const ConvAttributes& a = weights.attributes();
  const ConvKernel kernel = weights.kernel();
  const std::size_t columns = weights.output_size(height, width)[1], dilation_w = size(a.dilation_w);
  height_ = height;
  width_ = width;
  channels_ = weights.in_channels() / weights.groups();
  stride_h_ = size(a.stride_h);
  stride_w_ = size(a.stride_w);
  dilation_h_ = size(a.dilation_h);
  pad_top_ = size(a.pad_top);
  pad_left_ = size(a.pad_left);
  tap_rows_ = kernel.height;
  // An odd number of cache lines, so that rows are of all sets of a cache.
  columns_ = pitch_ = round_up(columns, kCopyBlock);
  if (pitch_ / kCopyBlock % 2 == 0) pitch_ += kCopyBlock;
  const std::size_t step = stride_h_ % dilation_h_ == 0 ? stride_h_ / dilation_h_ : tap_rows_;
  kept_rows_ = tap_rows_ - std::min(step, tap_rows_);
  advance_ = kept_rows_ == 0 ? 0 : step * kernel.width * pitch_;
  matrix_ = channels_ * kernel.taps() * pitch_;
  phase_pitch_ = pitch_ + (kernel.width - 1) * dilation_w / stride_w_ + kCopyBlock;
  phases_.clear();
  taps_.clear();
  for (std::size_t j = 0; j < kernel.width; ++j)
    taps_.push_back({phase_of(j * dilation_w % stride_w_), j * dilation_w / stride_w_});
}

std::size_t SlidingRows::phase_of(std::size_t column) {
  const auto found = std::ranges::find(phases_, column, &Phase::column);
  const auto index = static_cast<std::size_t>(found - phases_.begin());
  if (found != phases_.end()) return index;
  const std::size_t most = phase_pitch_ - kCopyBlock;
  const std::size_t left = std::min(count_below(pad_left_, column, stride_w_), most);
  const std::size_t right = std::clamp(count_below(width_ + pad_left_, column, stride_w_), left, most);
  phases_.push_back({column, left, right, right > left ? left * stride_w_ + column - pad_left_ : 0});
  return index;
}

void SlidingRows::split(const PanelKernels& kernels, const float* from, std::size_t rows, float* to) const {
  const std::size_t step = row_scratch(1), source_step = dilation_h_ * width_;
  auto* words = reinterpret_cast<std::uint32_t*>(to);
  SplitJob<std::uint32_t> job{
      reinterpret_cast<const std::uint32_t*>(from), rows, source_step, words, words, 0, 0, step};
  for (std::size_t p = 0; p < phases_.size(); ++p) {
    const Phase& phase = phases_[p];
    const std::size_t count = phase.right - phase.left;
    if (count == 0) continue;
    const std::size_t middle = p * phase_pitch_ + phase.left;
    if (stride_w_ == 2) {
      (phase.source == 1 ? job.odd : job.even) = words + middle;
      (phase.source == 1 ? job.odds : job.evens) = count;
    } else {
      for (std::size_t r = 0; r < rows; ++r) {
        const float* source = from + r * source_step + phase.source;
        float* row = to + r * step + middle;
        if (stride_w_ == 1)
          std::copy_n(source, count, row);
        else
          for (std::size_t i = 0; i < count; ++i) row[i] = source[i * stride_w_];
      }
    }
  }
  if (job.evens + job.odds != 0) kernels.split_u32(job);
}

void SlidingRows::fill(const PanelKernels& kernels, const float* planes, std::size_t row, bool slides,
                       float* matrix, float* scratch) const {
  const std::size_t first = slides ? kept_rows_ : 0, start = row * stride_h_;
  // Tap rows begin .. end are in the input.
  const std::size_t begin = std::clamp(count_below(pad_top_, start, dilation_h_), first, tap_rows_);
  const std::size_t end = std::clamp(count_below(pad_top_ + height_, start, dilation_h_), begin, tap_rows_);
  const std::size_t tap_row = taps_.size() * pitch_;
  const auto split_at = [&](std::size_t c, std::size_t i) {
    return scratch + row_scratch(c * tap_rows_ + i);
  };
  // All are split before the first is read: a load must not wait for the stores of which it takes parts.
  for (std::size_t c = 0; c < channels_ && begin < end; ++c)
    split(kernels, planes + (c * height_ + start + begin * dilation_h_ - pad_top_) * width_, end - begin,
          split_at(c, begin));
  for (std::size_t c = 0; c < channels_; ++c, matrix += tap_rows_ * tap_row) {
    std::fill(matrix + first * tap_row, matrix + begin * tap_row, 0.0f);
    for (std::size_t i = begin; i < end; ++i) copy_taps(split_at(c, i), matrix + i * tap_row);
    std::fill(matrix + end * tap_row, matrix + tap_rows_ * tap_row, 0.0f);
  }
}

/// In whole blocks.
void SlidingRows::copy_taps(const float* phases, float* to) const {
  for (const Tap& tap : taps_) {
    copy_blocks<1>(phases + tap.phase * phase_pitch_ + tap.shift, to, columns_, [](float x) { return x; });
    to += pitch_;
  }
}

}  // namespace gristmill
