#include "shifted_planes.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>

#include "checked_size.h"
#include "strided_copy.h"

namespace gristmill {

std::size_t ShiftedPlanes::Axis::extent(std::size_t phase) const {
  return size <= phase ? 0 : ceil_div(size - phase, stride);
}

void ShiftedPlanes::Axis::find_reaches(std::vector<Reach>& result) const {
  result.clear();
  const auto step = static_cast<std::ptrdiff_t>(stride);
  for (std::size_t k = 0; k < kernel; ++k) {
    const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(k * dilation) - static_cast<std::ptrdiff_t>(pad);
    const std::ptrdiff_t shift = at >= 0 ? at / step : -((step - 1 - at) / step);
    const auto phase = static_cast<std::size_t>(at - shift * step);
    const std::ptrdiff_t end = static_cast<std::ptrdiff_t>(extent(phase)) - shift;
    const std::size_t first = shift < 0 ? static_cast<std::size_t>(-shift) : 0;
    result.push_back(
        {phase, first, std::min(static_cast<std::size_t>(std::max<std::ptrdiff_t>(end, 0)), out), shift});
  }
}

bool ShiftedPlanes::lay_out(const PackedConv& weights, std::size_t height, std::size_t width) {
  const auto size = [](std::int64_t value) { return static_cast<std::size_t>(value); };
  const ConvAttributes& a = weights.attributes();
  const ConvKernel kernel = weights.kernel();
  const auto out = weights.output_size(height, width);
  const bool padded = (a.pad_top | a.pad_left | a.pad_bottom | a.pad_right) != 0;
  if ((!padded && a.stride_w == 1) || kernel.taps() > kMostTaps) return false;
  rows_ = {height, out[0], size(a.stride_h), size(a.dilation_h), size(a.pad_top), kernel.height};
  columns_ = {width, out[1], size(a.stride_w), size(a.dilation_w), size(a.pad_left), kernel.width};
  rows_.find_reaches(row_reach_);
  columns_.find_reaches(column_reach_);
  for (const Reach& column : column_reach_) {
    if (column.begin >= column.end) continue;
    const auto last = static_cast<std::size_t>(static_cast<std::ptrdiff_t>(column.end) + column.shift);
    if (last > columns_.out) return false;
  }
  staged_ = columns_.stride > 1 || rows_.stride > 1 || width != columns_.out;
  phase_rows_ = 0;
  for (const Reach& row : row_reach_) phase_rows_ = std::max(phase_rows_, rows_.extent(row.phase));
  // Blocks of a phase's last row may be copied as a whole.
  phase_elements_ = staged_ ? phase_rows_ * columns_.out + kCopyBlock : 0;
  phases_.clear();
  tap_offset_.clear();
  for (const Reach& row : row_reach_)
    for (const Reach& column : column_reach_) add_tap(row, column);
  plane_elements_ = staged_ ? checked_product({phases_.size(), phase_elements_}, "x") : height * width;
  return phase_rows_ > 0;
}

void ShiftedPlanes::add_tap(const Reach& row, const Reach& column) {
  const auto same = [&](const Phase& p) { return p.row == row.phase && p.column == column.phase; };
  const auto index = static_cast<std::size_t>(std::ranges::find_if(phases_, same) - phases_.begin());
  if (index == phases_.size()) {
    phases_.push_back({row.phase, column.phase, rows_.extent(row.phase),
                       std::min(columns_.extent(column.phase), columns_.out)});
  }
  // A tap that only ever reads padding may be anywhere.
  const bool inside = row.begin < row.end && column.begin < column.end;
  const auto out = static_cast<std::ptrdiff_t>(columns_.out);
  const std::ptrdiff_t shift = inside ? row.shift * out + column.shift : 0;
  tap_offset_.push_back(static_cast<std::ptrdiff_t>(index * phase_elements_) + shift);
}

void ShiftedPlanes::fill_masks(std::size_t first, std::size_t count, std::uint8_t* masks) const {
  using Mask = std::array<std::uint8_t, kMaskStep>;
  std::array<Mask, kMostTaps> rows, columns;
  std::fill_n(rows.begin(), row_reach_.size(), Mask{});
  std::fill_n(columns.begin(), column_reach_.size(), Mask{});
  std::size_t row = first / columns_.out, column = first % columns_.out;
  for (std::size_t lane = 0; lane < count; ++row, column = 0) {
    const std::size_t end = std::min(columns_.out, column + (count - lane)), next = lane + (end - column);
    for (std::size_t k = 0; k < row_reach_.size(); ++k)
      if (row >= row_reach_[k].begin && row < row_reach_[k].end)
        std::memset(&rows[k][lane], 0xFF, next - lane);
    for (std::size_t k = 0; k < column_reach_.size(); ++k) {
      const std::size_t from = std::max(column, column_reach_[k].begin),
                        to = std::min(end, column_reach_[k].end);
      if (from < to) std::memset(&columns[k][lane + (from - column)], 0xFF, to - from);
    }
    lane = next;
  }
  for (std::size_t r = 0; r < row_reach_.size(); ++r)
    for (std::size_t c = 0; c < column_reach_.size(); ++c, masks += kMaskStep)
      for (std::size_t i = 0; i < kMaskStep; ++i)
        masks[i] = static_cast<std::uint8_t>(rows[r][i] & columns[c][i]);
}

template <std::size_t step, class T>
void ShiftedPlanes::stage_phase(const Phase& phase, const T* source, const T* source_end, T* staged,
                                T* staged_end) const {
  const auto same = [](T value) { return value; };
  for (std::size_t r = 0; r < phase.rows; ++r, staged += columns_.out) {
    const T* from = source + (r * rows_.stride + phase.row) * columns_.size + phase.column;
    if constexpr (step == 0) {
      for (std::size_t i = 0; i < phase.columns; ++i) staged[i] = from[i * columns_.stride];
    } else if (phase.columns > 0) {
      copy_run<step>(from, source_end, staged, staged_end, phase.columns, same);
    }
  }
}

template <class T>
void ShiftedPlanes::split(const PanelKernels& kernels, std::size_t first, std::size_t last, const T* source,
                          T* staged) const {
  using Bits = std::conditional_t<sizeof(T) == 1, std::uint8_t, std::uint32_t>;
  auto* to = reinterpret_cast<Bits*>(staged);
  SplitJob<Bits> job{reinterpret_cast<const Bits*>(source) + phases_[first].row * columns_.size,
                     phases_[first].rows,
                     rows_.stride * columns_.size,
                     to,
                     to,
                     0,
                     0,
                     columns_.out};
  for (std::size_t i = first; i < last; ++i, to += phase_elements_) {
    const bool odd = phases_[i].column == 1;
    (odd ? job.odd : job.even) = to;
    (odd ? job.odds : job.evens) = phases_[i].columns;
  }
  if constexpr (sizeof(T) == 1)
    kernels.split_u8(job);
  else
    kernels.split_u32(job);
}

template <class T>
void ShiftedPlanes::stage(const PanelKernels& kernels, const T* source, const T* source_end, T* staged,
                          T* staged_end) const {
  for (std::size_t i = 0, next = 0; i < phases_.size(); staged += (next - i) * phase_elements_, i = next) {
    const Phase& phase = phases_[i];
    const bool paired = columns_.stride == 2 && i + 1 < phases_.size() && phases_[i + 1].row == phase.row;
    next = i + (paired ? 2 : 1);
    if (columns_.stride == 1)
      stage_phase<1>(phase, source, source_end, staged, staged_end);
    else if (columns_.stride == 2)
      split(kernels, i, next, source, staged);
    else
      stage_phase<0>(phase, source, source_end, staged, staged_end);
  }
}

template void ShiftedPlanes::stage(const PanelKernels&, const std::uint8_t*, const std::uint8_t*,
                                   std::uint8_t*, std::uint8_t*) const;
template void ShiftedPlanes::stage(const PanelKernels&, const std::uint32_t*, const std::uint32_t*,
                                   std::uint32_t*, std::uint32_t*) const;
template void ShiftedPlanes::stage(const PanelKernels&, const float*, const float*, float*, float*) const;

}  // namespace gristmill
