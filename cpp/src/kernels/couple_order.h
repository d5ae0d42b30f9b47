#pragma once

#include "weight_kernels.h"

/// The order in which groups of K are coupled: the first of those left with the one that goes best with it of
/// the next kCandidates that have not been taken before, and of equals with the nearest.
///
/// The weights of a group are seen through their *sums*: for each row those of the positive weights of both
/// pairs, and of the magnitudes of the negative ones, which is all that decides which rows of a couple
/// exceed kCoupleSum. A `Level` has
///
///     sum_up(weights, sums)   the sums of a group, kSums bytes in an order of its own
///     copy(from, to)          the weights of a group
///     cut(couple, to, cut)    the weights of a couple, and its CutWeights; returns where these end
///     First                   what is asked of the first group of a couple; made of its sums
///     First::rows(sums)       the rows that exceed with that group
///     First::search(sums, taken, costs)
///                             the number of the best of kCandidates groups that follow each other, of
///                             which those whose bits are in `taken` do not count; one of them is not
///
/// Every couple waits for the one before it, which may take what it would choose. So two row blocks are
/// coupled in turns, each in the time that the other one waits.
namespace gristmill {
namespace {

constexpr std::size_t kSums = 4 * kCoupledRows;

struct Couple {
  const std::int8_t* weights[2];
  std::uint16_t groups[2];
};

/// What it costs that a row exceeds: as the pass over the excess takes as long as the fullest row's, more
/// where more exceeds than in the emptiest one. A byte for each row, from kLeast to 127.
class RowCosts {
 public:
  std::uint32_t bytes() const { return bytes_; }
  std::uint32_t sum(std::size_t rows) const {
    std::uint32_t total = 0;
    for (std::size_t row = 0; row < kCoupledRows; ++row)
      total += (rows >> row & 1) != 0 ? bytes_ >> 8 * row & 0xFF : 0;
    return total;
  }
  void add(std::size_t rows) {
    bytes_ += (static_cast<std::uint32_t>(rows) * 0x00204081) & kEach;  // bit r to byte r
    bytes_ -= bytes_ >> 7 & kEach;
    const bool all_above = ((bytes_ + kEach * (127 - kLeast)) & kEach * 128) == kEach * 128;
    bytes_ -= all_above ? kEach : 0;
  }

 private:
  static constexpr std::uint32_t kEach = 0x01010101, kLeast = 4;
  std::uint32_t bytes_ = kEach * kLeast;
};

template <class Level>
class Coupling {
 public:
  explicit Coupling(const CoupleJob& job) : job_(job), cut_(job.cut) {
    for (std::size_t g = 0; g < job.groups; ++g) Level::sum_up(job.block + g * kGroup, job.sums + g * kSums);
  }

  bool is_done() const { return coupled_ + 1 >= job_.groups; }

  [[gnu::always_inline]] void step() {
    const typename Level::First first(job_.sums + first_ * kSums);
    const std::uint8_t* sums = job_.sums + (first_ + 1) * kSums;
    const std::size_t left = job_.groups - first_ - 1;
    const std::uint64_t beyond = left < kCandidates ? ~std::uint64_t{0} << left : 0;
    const std::uint32_t best = first.search(sums, taken_ | beyond, costs_);
    const std::size_t rows = first.rows(sums + best * kSums);
    add(first_, first_ + 1 + best, rows);
    taken_ |= std::uint64_t{1} << best;
    const int passed = __builtin_ctzll(~taken_);
    first_ += static_cast<std::size_t>(passed) + 1;
    taken_ >>= passed + 1;
  }

  /// Returns how many CutWeights there are.
  std::size_t finish() {
    if (job_.groups % 2 != 0) cut_alone();
    return static_cast<std::size_t>(cut_ - job_.cut);
  }

 private:
  static constexpr std::size_t kGroup = 4 * kCoupledRows;

  [[gnu::always_inline]] void add(std::size_t first, std::size_t second, std::size_t rows) {
    const Couple couple{{job_.block + first * kGroup, job_.block + second * kGroup},
                        {static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(second)}};
    job_.order[coupled_] = couple.groups[0];
    job_.order[coupled_ + 1] = couple.groups[1];
    std::int8_t* to = job_.weights + coupled_ * kGroup;
    coupled_ += 2;
    if (rows == 0) {
      Level::copy(couple.weights[0], to);
      Level::copy(couple.weights[1], to + kGroup);
    } else {
      costs_.add(rows);
      cut_ = Level::cut(couple, to, cut_);
    }
  }

  /// The weights of the group that has no other.
  void cut_alone() {
    const std::int8_t zeros[kGroup] = {};
    std::int8_t both[2][kGroup];
    const auto group = static_cast<std::uint16_t>(first_);
    job_.order[job_.groups - 1] = group;
    cut_ = Level::cut({{job_.block + first_ * kGroup, zeros}, {group, 0}}, both[0], cut_);
    Level::copy(both[0], job_.weights + (job_.groups - 1) * kGroup);
  }

  const CoupleJob job_;
  CutWeights* cut_;
  RowCosts costs_;
  std::size_t coupled_ = 0;  // groups
  std::size_t first_ = 0;    // group that is left
  std::uint64_t taken_ = 0;  // of those that follow it
};

template <class Level>
CutCounts couple_in_order(const CoupleJob& job, const CoupleJob* other) {
  Coupling<Level> one(job);
  if (other == nullptr) {
    while (!one.is_done()) one.step();
    return {one.finish(), 0};
  }
  Coupling<Level> two(*other);
  while (!one.is_done()) {
    one.step();
    two.step();
  }
  return {one.finish(), two.finish()};
}

}  // namespace
}  // namespace gristmill
