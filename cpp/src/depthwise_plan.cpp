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

/// What a lane may want but an element of the plane.
constexpr std::size_t kPadding = std::numeric_limits<std::size_t>::max();
constexpr std::size_t kNothing = kPadding - 1;  // the lane or its tap does not exist

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
  Builder(const DepthwiseGeometry& geometry, const GatherKernel& kernel, bool shared)
      : g_(geometry),
        shared_(shared),
        lanes_(kernel.lanes),
        vectors_(kernel.vectors),
        taps_(kernel.taps),
        window_(taps_ * lanes_),
        plane_(geometry.height * geometry.width) {}

  std::unique_ptr<const DepthwisePlan> build();

 private:
  bool add_segment(std::size_t row, std::size_t rows);
  std::size_t add_block_s8(std::size_t row, std::size_t at, std::size_t left);
  std::size_t add_block_f32(std::size_t row, std::size_t at, std::size_t left);
  /// The element that a tap reads for pixel `at` of the rows from `row` on, or kPadding.
  std::size_t element(std::size_t row, std::size_t at, std::size_t kh, std::size_t kw) const;
  /// Adds to `wanted_` what the taps from `kw` to `end` of a kernel row read, `taps_` at a time.
  void list(std::size_t row, std::size_t at, std::size_t count, std::size_t kh, std::size_t kw,
            std::size_t end);
  void list_row(std::size_t row, std::size_t at, std::size_t count, std::size_t kh) {
    wanted_.clear();
    list(row, at, count, kh, 0, g_.kernel_columns);
  }
  bool is_f32() const { return taps_ == 1; }
  void add_index(std::size_t wanted, std::string& bytes) const;
  /// Covers `wanted_` with two windows.
  bool cover(std::size_t source);
  void add_indices();
  bool add_direct(std::size_t row, std::size_t at, std::size_t count);
  void add_windows(const std::string& indices);

  const DepthwiseGeometry g_;
  const bool shared_;
  const std::size_t lanes_, vectors_, taps_, window_, plane_;
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

void DepthwisePlan::Builder::list(std::size_t row, std::size_t at, std::size_t count, std::size_t kh,
                                  std::size_t kw, std::size_t end) {
  for (; kw < end; kw += taps_) {
    for (std::size_t lane = 0; lane < lanes_; ++lane) {
      for (std::size_t tap = kw; tap < kw + taps_; ++tap) {
        const bool exists = lane < count && tap < g_.kernel_columns;
        wanted_.push_back(exists ? element(row, at + lane, kh, tap) : kNothing);
      }
    }
  }
}

bool DepthwisePlan::Builder::cover(std::size_t source) {
  // The last element of the second window is padding, where that has no index of its own.
  const std::size_t second_window = taps_ == 2 ? window_ : window_ - 1;
  const std::size_t last[2] = {plane_ - std::min(plane_, window_), plane_ - std::min(plane_, second_window)};
  const auto least = [&](std::size_t from) {
    std::size_t found = kPadding;
    for (std::size_t e : wanted_)
      if (e >= from && e < plane_) found = std::min(found, e);
    return found;
  };
  const std::size_t first = least(0);
  first_[0] = std::min(first == kPadding ? source : first, last[0]);
  const std::size_t second = least(first_[0] + window_);
  first_[1] = second == kPadding ? first_[0] : std::min(second, last[1]);
  return second == kPadding || least(first_[1] + second_window) == kPadding;
}

void DepthwisePlan::Builder::add_index(std::size_t wanted, std::string& bytes) const {
  const bool exists = wanted < plane_;
  const bool second = exists && wanted - first_[0] >= window_;
  const std::size_t index = !exists ? window_ - 1 : wanted - first_[second ? 1 : 0];
  if (taps_ == 2) {
    const std::size_t word = wanted == kNothing ? 0xFF : !exists ? 0xC0 : second ? 0x80 + index : index;
    bytes.append({static_cast<char>(word), '\xFF'});
    return;
  }
  bytes.push_back(static_cast<char>(second || !exists ? window_ + index : index));
  if (is_f32()) bytes.append({'\0', '\0', second || !exists ? '\x80' : '\0'});
}

void DepthwisePlan::Builder::add_indices() {
  std::string bytes;
  for (std::size_t wanted : wanted_) add_index(wanted, bytes);
  add_windows(bytes);
}

void DepthwisePlan::Builder::add_windows(const std::string& indices) {
  const auto at = static_cast<std::uint32_t>(indices_.size() / (4 * lanes_));
  const auto [found, is_new] = known_.try_emplace(indices, at);
  if (is_new) indices_ += indices;
  const bool second =
      std::ranges::any_of(wanted_, [&](std::size_t e) { return e < plane_ && e - first_[0] >= window_; });
  const bool padded = std::ranges::find(wanted_, kPadding) != wanted_.end();
  windows_.push_back(
      {{static_cast<std::int32_t>(first_[0] - source_), static_cast<std::int32_t>(first_[1] - source_)},
       found->second,
       second,
       padded});
}

/// Adds a block whose pixels are neighbours in the plane for each tap, if it is one: away from the upper and
/// lower border, where whole vectors may be read.
bool DepthwisePlan::Builder::add_direct(std::size_t row, std::size_t at, std::size_t count) {
  const std::size_t extent = lanes_ + g_.kernel_columns - 1;
  std::vector<std::size_t> starts;
  std::string masks;
  for (std::size_t kh = 0; kh < g_.kernel_rows; ++kh) {
    list_row(row, at, count, kh);
    std::optional<std::size_t> start;
    std::string row_masks;
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
      const std::size_t offset = i % lanes_ + i / lanes_;  // of lane and tap
      row_masks.append(sizeof(float), wanted_[i] >= plane_ ? '\0' : '\xFF');
      if (wanted_[i] >= plane_) continue;
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
  const std::size_t group = taps_ == 4 ? 4 : g_.kernel_columns;
  for (std::size_t kh = 0; kh < g_.kernel_rows; ++kh) {
    for (std::size_t kw = 0; kw < g_.kernel_columns; kw += group) {
      wanted_.clear();
      for (std::size_t lane = 0; lane < count; lane += lanes_) {
        if (!shared_) wanted_.clear();
        list(row, at + lane, count - lane, kh, kw, std::min(kw + group, g_.kernel_columns));
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
    const std::size_t count = is_f32() ? add_block_f32(row, at, left) : add_block_s8(row, at, left);
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

std::unique_ptr<const DepthwisePlan> DepthwisePlan::make(const DepthwiseGeometry& geometry,
                                                         const GatherKernel& kernel) {
  const std::size_t out = geometry.out_rows * geometry.out_columns, plane = geometry.height * geometry.width;
  if (kernel.run == nullptr || out == 0 || plane == 0) return nullptr;
  if (plane > std::size_t{std::numeric_limits<std::int32_t>::max()}) return nullptr;
  if (out > (geometry.stride_w == 1 ? kernel.most : kernel.most_strided)) return nullptr;
  if (kernel.taps == 4) {
    if (auto plan = Builder(geometry, kernel, true).build()) return plan;
  }
  return Builder(geometry, kernel, false).build();
}

}  // namespace gristmill
