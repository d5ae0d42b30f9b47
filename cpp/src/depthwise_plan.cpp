#include "depthwise_plan.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "checked_size.h"

namespace gristmill {
namespace {

/// Blocks that a segment has at most, unless one row has more.
constexpr std::size_t kSegmentBlocks = 16;

/// Bytes of index vectors beyond which staging is as fast.
constexpr std::size_t kMostIndexBytes = 1 << 16;

constexpr std::size_t kPadding = std::numeric_limits<std::size_t>::max();

/// Neighbouring rows that make a whole number of blocks, or as many as fit.
std::size_t rows_per_segment(std::size_t rows, std::size_t columns, std::size_t block) {
  const std::size_t most = kSegmentBlocks * block / columns;
  if (rows <= most) return rows;
  for (std::size_t n = 1; n <= most; ++n)
    if (n * columns % block == 0) return n;
  return std::max<std::size_t>(most, 1);
}

}  // namespace

class DepthwisePlan::Builder {
 public:
  Builder(const DepthwiseGeometry& geometry, Operand operand, const GatherKernel& kernel, bool shared)
      : g_(geometry),
        is_s8_(operand == Operand::s8),
        shared_(shared),
        lanes_(kernel.lanes),
        vectors_(kernel.vectors),
        window_(is_s8_ ? 4 * lanes_ : lanes_),
        plane_(geometry.height * geometry.width) {}

  std::unique_ptr<const DepthwisePlan> build();

 private:
  bool add_segment(std::size_t row, std::size_t rows);
  std::size_t add_block_s8(std::size_t row, std::size_t at, std::size_t left);
  std::size_t add_block_f32(std::size_t row, std::size_t at, std::size_t left);
  /// The element that a tap reads for pixel `at` of the rows from `row` on, or kPadding.
  std::size_t element(std::size_t row, std::size_t at, std::size_t kh, std::size_t kw) const;
  void list_quad(std::size_t row, std::size_t at, std::size_t count, std::size_t kh, std::size_t kw);
  void list_row(std::size_t row, std::size_t at, std::size_t count, std::size_t kh);
  /// Covers `wanted_` with two windows.
  bool cover(std::size_t source);
  void add_indices();
  bool add_direct(std::size_t row, std::size_t at, std::size_t count);
  void add_windows(const std::string& indices);

  const DepthwiseGeometry g_;
  const bool is_s8_, shared_;
  const std::size_t lanes_, vectors_, window_, plane_;
  std::size_t source_ = 0;
  std::vector<std::size_t> wanted_;  // elements in the order of index vectors
  std::size_t first_[2] = {};
  std::vector<GatherWindows> windows_;  // of the segment being made
  std::vector<GatherBlock> blocks_;
  std::string indices_;
  std::unordered_map<std::string, std::uint32_t> known_;  // index vectors and where they are stored
};

std::size_t DepthwisePlan::Builder::element(std::size_t row, std::size_t at, std::size_t kh,
                                            std::size_t kw) const {
  const std::size_t y = (row + at / g_.out_columns) * g_.stride_h + kh * g_.dilation_h;
  const std::size_t x = at % g_.out_columns * g_.stride_w + kw * g_.dilation_w;
  if (y < g_.pad_top || y - g_.pad_top >= g_.height || x < g_.pad_left || x - g_.pad_left >= g_.width)
    return kPadding;
  return (y - g_.pad_top) * g_.width + x - g_.pad_left;
}

void DepthwisePlan::Builder::list_quad(std::size_t row, std::size_t at, std::size_t count, std::size_t kh,
                                       std::size_t kw) {
  for (std::size_t lane = 0; lane < lanes_; ++lane) {
    for (std::size_t tap = kw; tap < kw + 4; ++tap) {
      const bool exists = lane < count && tap < g_.kernel_columns;
      wanted_.push_back(exists ? element(row, at + lane, kh, tap) : kPadding);
    }
  }
}

void DepthwisePlan::Builder::list_row(std::size_t row, std::size_t at, std::size_t count, std::size_t kh) {
  for (std::size_t tap = 0; tap < g_.kernel_columns; ++tap) {
    for (std::size_t lane = 0; lane < lanes_; ++lane)
      wanted_.push_back(lane < count ? element(row, at + lane, kh, tap) : kPadding);
  }
}

bool DepthwisePlan::Builder::cover(std::size_t source) {
  const std::size_t last[2] = {plane_ - std::min(plane_, window_), plane_ - std::min(plane_, window_ - 1)};
  const auto least = [&](std::size_t from) {
    std::size_t found = kPadding;
    for (std::size_t e : wanted_)
      if (e >= from) found = std::min(found, e);
    return found;
  };
  const std::size_t first = least(0);
  first_[0] = std::min(first == kPadding ? source : first, last[0]);
  const std::size_t second = least(first_[0] + window_);
  first_[1] = second == kPadding ? first_[0] : std::min(second, last[1]);
  return second == kPadding || least(first_[1] + window_ - 1) == kPadding;
}

void DepthwisePlan::Builder::add_indices() {
  std::string bytes;
  for (std::size_t e : wanted_) {
    std::size_t index = 2 * window_ - 1;
    if (e != kPadding) index = e - first_[0] < window_ ? e - first_[0] : window_ + e - first_[1];
    bytes.push_back(static_cast<char>(index));
    if (!is_s8_) bytes.append({'\0', '\0', index < window_ ? '\0' : '\x80'});
  }
  add_windows(bytes);
}

void DepthwisePlan::Builder::add_windows(const std::string& indices) {
  const auto at = static_cast<std::uint32_t>(indices_.size() / (window_ * (is_s8_ ? 1 : sizeof(float))));
  const auto [found, is_new] = known_.try_emplace(indices, at);
  if (is_new) indices_ += indices;
  windows_.push_back(
      {{static_cast<std::int32_t>(first_[0] - source_), static_cast<std::int32_t>(first_[1] - source_)},
       found->second});
}

/// Adds a block whose pixels are neighbours in the plane for each tap, if it is one: away from the upper and
/// lower border, where whole vectors may be read.
bool DepthwisePlan::Builder::add_direct(std::size_t row, std::size_t at, std::size_t count) {
  const std::size_t extent = lanes_ + g_.kernel_columns - 1;
  std::vector<std::size_t> starts;
  std::string masks;
  for (std::size_t kh = 0; kh < g_.kernel_rows; ++kh) {
    wanted_.clear();
    list_row(row, at, count, kh);
    std::optional<std::size_t> start;
    std::string row_masks;
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
      const std::size_t offset = i % lanes_ + i / lanes_;  // of lane and tap
      row_masks.append(sizeof(float), wanted_[i] == kPadding ? '\0' : '\xFF');
      if (wanted_[i] == kPadding) continue;
      if (!start) start = wanted_[i] - offset;
      if (wanted_[i] - offset != start) return false;
    }
    if (!start || *start > plane_ || plane_ - *start < extent) return false;
    if (kh > 0 && row_masks != masks) return false;
    masks = row_masks;
    starts.push_back(*start);
  }
  for (std::size_t start : starts) {
    first_[0] = first_[1] = start;
    add_windows(masks);
  }
  return true;
}

std::size_t DepthwisePlan::Builder::add_block_s8(std::size_t row, std::size_t at, std::size_t left) {
  const std::size_t count = std::min(left, lanes_ * vectors_);
  for (std::size_t kh = 0; kh < g_.kernel_rows; ++kh) {
    for (std::size_t kw = 0; kw < g_.kernel_columns; kw += 4) {
      wanted_.clear();
      for (std::size_t lane = 0; lane < count; lane += lanes_) {
        if (!shared_) wanted_.clear();
        list_quad(row, at + lane, std::min(lanes_, count - lane), kh, kw);
        if (shared_ && lane + lanes_ < count) continue;
        if (!cover(source_)) return 0;
        add_indices();
      }
    }
  }
  blocks_.push_back({static_cast<std::uint8_t>(count), false});
  return count;
}

std::size_t DepthwisePlan::Builder::add_block_f32(std::size_t row, std::size_t at, std::size_t left) {
  const auto fits = [&](std::size_t count) {
    for (std::size_t kh = 0; kh < g_.kernel_rows; ++kh) {
      wanted_.clear();
      list_row(row, at, count, kh);
      if (!cover(source_)) return false;
    }
    return true;
  };
  std::size_t count = std::min(left, lanes_);
  while (count > 0 && !fits(count)) --count;
  if (2 * count < std::min(left, lanes_)) return 0;
  if (add_direct(row, at, count)) {
    blocks_.push_back({static_cast<std::uint8_t>(count), true});
    return count;
  }
  for (std::size_t kh = 0; kh < g_.kernel_rows; ++kh) {
    wanted_.clear();
    list_row(row, at, count, kh);
    cover(source_);
    add_indices();
  }
  blocks_.push_back({static_cast<std::uint8_t>(count), false});
  return count;
}

bool DepthwisePlan::Builder::add_segment(std::size_t row, std::size_t rows) {
  windows_.clear();
  blocks_.clear();
  source_ = std::min(row * g_.stride_h * g_.width, plane_);
  for (std::size_t at = 0, left = rows * g_.out_columns; left > 0;) {
    const std::size_t count = is_s8_ ? add_block_s8(row, at, left) : add_block_f32(row, at, left);
    if (count == 0 || indices_.size() > kMostIndexBytes) return false;
    at += count;
    left -= count;
  }
  return true;
}

std::unique_ptr<const DepthwisePlan> DepthwisePlan::Builder::build() {
  std::unique_ptr<DepthwisePlan> plan(new DepthwisePlan);
  const std::size_t step = rows_per_segment(g_.out_rows, g_.out_columns, lanes_ * vectors_);
  for (std::size_t row = 0; row < g_.out_rows; row += step) {
    if (!add_segment(row, std::min(step, g_.out_rows - row))) return nullptr;
    if (plan->windows_.empty() || plan->windows_.back() != windows_ || plan->blocks_.back() != blocks_) {
      plan->windows_.push_back(windows_);
      plan->blocks_.push_back(blocks_);
    }
    plan->segments_.push_back(
        {plan->windows_.back().data(), plan->blocks_.back().data(), blocks_.size(), source_});
  }
  std::memcpy(plan->indices_.reserve(indices_.size()), indices_.data(), indices_.size());
  plan->shared_ = shared_;
  plan->overrun_ = window_ - std::min(window_, plane_);
  return plan;
}

std::unique_ptr<const DepthwisePlan> DepthwisePlan::make(const DepthwiseGeometry& geometry, Operand operand,
                                                         const GatherKernel& kernel) {
  const std::size_t out = geometry.out_rows * geometry.out_columns;
  if (kernel.run == nullptr || out == 0 || geometry.height * geometry.width == 0) return nullptr;
  if (geometry.height * geometry.width > std::numeric_limits<std::int32_t>::max()) return nullptr;
  if (operand == Operand::s8) {
    if (auto plan = Builder(geometry, operand, kernel, true).build()) return plan;
  }
  return Builder(geometry, operand, kernel, false).build();
}

}  // namespace gristmill
