#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "checked_size.h"
#include "gristmill/tensor.h"
#include "ranges.h"

/// Nests of loops over several arrays at once.
///
/// Elementwise work may visit its elements in any order. When a step is made, its nest is *normalized*: loops
/// of extent 1 vanish, those that run backward through the output are reversed, loops are sorted by their
/// steps in the output, and neighbours that run through all arrays without a gap become one. The innermost
/// loop is the *line* that a step's function works on; the outer loops only say where lines start.
namespace gristmill {

/// One loop: steps of each array are counted in elements; array 0 is the output.
template <std::size_t arrays>
struct StridedLoop {
  std::size_t extent = 1;
  std::array<std::ptrdiff_t, arrays> step{};
};

template <std::size_t arrays>
class StridedLoops {
 public:
  using Offsets = std::array<std::ptrdiff_t, arrays>;
  using Loop = StridedLoop<arrays>;

  StridedLoops() = default;
  /// `offsets` is where element 0 of each array is.
  StridedLoops(const std::vector<Loop>& loops, const Offsets& offsets) : start_(offsets) {
    for (const Loop& loop : loops) {
      total_ *= loop.extent;
      if (loop.extent != 1) loops_.push_back(loop);
    }
    if (total_ == 0) loops_.clear();
    reverse_downward();
    std::stable_sort(loops_.begin(), loops_.end(), [](const Loop& a, const Loop& b) {
      return a.step[0] != b.step[0] ? a.step[0] > b.step[0] : magnitude(a) > magnitude(b);
    });
    fuse();
    if (loops_.empty()) {
      loops_.push_back({total_, {}});
      loops_[0].step.fill(1);
    }
    line_ = loops_.back();
    loops_.pop_back();
    lines_ = line_.extent == 0 ? 0 : total_ / line_.extent;
  }

  /// A nest whose lines are single elements, in the order of `loops`.
  static StridedLoops of_single_elements(const std::vector<Loop>& loops) {
    StridedLoops nest;
    nest.loops_ = loops;
    for (const Loop& loop : loops) nest.total_ *= loop.extent;
    nest.lines_ = nest.total_;
    return nest;
  }

  const Loop& line() const { return line_; }
  std::size_t lines() const { return lines_; }
  std::size_t total() const { return total_; }
  const std::vector<Loop>& outer() const { return loops_; }
  const Offsets& start() const { return start_; }

  /// Takes outer loop `index` out of the nest, for a step that runs it together with the line.
  Loop take(std::size_t index) {
    const Loop taken = loops_[index];
    loops_.erase(loops_.begin() + static_cast<std::ptrdiff_t>(index));
    lines_ /= taken.extent;
    return taken;
  }

  /// body(offsets) at the start of each line from `first` to `last`.
  template <class Body>
  void for_each_line(std::size_t first, std::size_t last, const Body& body) const {
    if (first >= last) return;
    std::array<std::size_t, kMostLoops> index{};
    Offsets at = start_;
    std::size_t rest = first;
    for (std::size_t d = loops_.size(); d-- > 0; rest /= loops_[d].extent) {
      index[d] = rest % loops_[d].extent;
      for (std::size_t a = 0; a < arrays; ++a)
        at[a] += static_cast<std::ptrdiff_t>(index[d]) * loops_[d].step[a];
    }
    for (;;) {
      body(at);
      if (++first == last) return;
      advance(index, at);
    }
  }

  /// body(offsets, count) for pieces of lines, split over threads by elements of the output.
  template <class Body>
  void for_each_piece(std::size_t element_bytes, int threads, const Body& body) const {
    const std::size_t grain = kRangeBytes / element_bytes;
    if (lines_ == 1) {
      for_each_range(total_, grain, threads, [&](std::size_t begin, std::size_t end) {
        Offsets at = start_;
        for (std::size_t a = 0; a < arrays; ++a) at[a] += static_cast<std::ptrdiff_t>(begin) * line_.step[a];
        body(at, end - begin);
      });
      return;
    }
    for_each_range(lines_, ceil_div(grain, std::max<std::size_t>(line_.extent, 1)), threads,
                   [&](std::size_t begin, std::size_t end) {
                     for_each_line(begin, end, [&](const Offsets& at) { body(at, line_.extent); });
                   });
  }

  static constexpr std::size_t kMostLoops = 16;

 private:
  static std::size_t magnitude(const Loop& loop) {
    std::size_t most = 0;
    for (std::ptrdiff_t step : loop.step)
      most = std::max(most, static_cast<std::size_t>(step < 0 ? -step : step));
    return most;
  }

  void reverse_downward() {
    for (Loop& loop : loops_) {
      if (loop.step[0] >= 0) continue;
      for (std::size_t a = 0; a < arrays; ++a) {
        start_[a] += static_cast<std::ptrdiff_t>(loop.extent - 1) * loop.step[a];
        loop.step[a] = -loop.step[a];
      }
    }
  }

  void fuse() {
    for (std::size_t i = loops_.size(); i-- > 1;) {
      const Loop& inner = loops_[i];
      Loop& outer = loops_[i - 1];
      bool gapless = true;
      for (std::size_t a = 0; a < arrays; ++a)
        gapless &= outer.step[a] == inner.step[a] * static_cast<std::ptrdiff_t>(inner.extent);
      if (!gapless) continue;
      outer = {outer.extent * inner.extent, inner.step};
      loops_.erase(loops_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }

  void advance(std::array<std::size_t, kMostLoops>& index, Offsets& at) const {
    for (std::size_t d = loops_.size(); d-- > 0;) {
      const Loop& loop = loops_[d];
      for (std::size_t a = 0; a < arrays; ++a) at[a] += loop.step[a];
      if (++index[d] < loop.extent) return;
      for (std::size_t a = 0; a < arrays; ++a)
        at[a] -= static_cast<std::ptrdiff_t>(loop.extent) * loop.step[a];
      index[d] = 0;
    }
  }

  std::vector<Loop> loops_;
  Loop line_{};
  Offsets start_{};
  std::size_t total_ = 1, lines_ = 0;
};

/// Strides of an operand of this shape that is broadcast to `shape` as numpy does; throws Error(shape) naming
/// the operand if it does not fit.
std::vector<std::ptrdiff_t> broadcast_strides(const std::vector<std::size_t>& operand,
                                              const std::vector<std::size_t>& shape, const char* name);

/// Throws Error(limit) for more dimensions than steps take.
void require_rank_within_limit(std::size_t rank, const char* name);

/// The nest of elementwise operands broadcast to the output's shape; `names` are those of the inputs.
template <std::size_t arrays>
StridedLoops<arrays> broadcast_loops(const Tensor& out, const std::array<const Tensor*, arrays - 1>& inputs,
                                     const std::array<const char*, arrays - 1>& names) {
  require_rank_within_limit(out.rank(), "out");
  element_count(out.shape(), "out");
  std::vector<StridedLoop<arrays>> loops(out.rank());
  const auto dense = dense_strides(out.shape());
  for (std::size_t d = 0; d < loops.size(); ++d) {
    loops[d].extent = out.shape()[d];
    loops[d].step[0] = dense[d];
  }
  for (std::size_t i = 0; i + 1 < arrays; ++i) {
    const auto strides = broadcast_strides(inputs[i]->shape(), out.shape(), names[i]);
    for (std::size_t d = 0; d < loops.size(); ++d) loops[d].step[i + 1] = strides[d];
  }
  return {loops, {}};
}

}  // namespace gristmill
