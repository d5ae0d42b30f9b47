#pragma once

#include "weight_kernels.h"

/// The order in which groups of K are coupled: the first of those left with the one of the next kCandidates
/// that goes best with it, and of equals with the nearest.
///
/// The weights of a group are seen through their *sums*: for each row those of the positive weights of both
/// pairs, and of the magnitudes of the negative ones, which is all that decides which rows of a couple
/// exceed kCoupleSum. A `Level` has
///
///     kNever                  a byte of sums that exceed with any others
///     sum_up(weights, sums)   the sums of a group, kSums bytes in an order of its own
///     copy(from, to)          the weights of a group
///     cut(couple, to, cut)    the weights of a couple, and its CutWeights; returns where these end
///     First                   what is asked of the first group of a couple; made of its sums
///     First::rows(sums)       the rows that exceed with that group
///     First::search(sums, candidates, costs)  the number of the best; whole batches of sums are read
namespace gristmill {
namespace {

/// Groups among which the second of a couple is chosen: more find a better one more seldom than they cost.
constexpr std::uint32_t kCandidates = 32;
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

/// The weights of a group that has no other.
template <class Level>
CutWeights* cut_alone(const CoupleJob& job, CutWeights* cut) {
  const std::int8_t zeros[4 * kCoupledRows] = {};
  std::int8_t both[2][4 * kCoupledRows];
  const std::uint16_t group = job.order[job.groups - 1];
  cut = Level::cut({{job.block + group * 4 * kCoupledRows, zeros}, {group, 0}}, both[0], cut);
  Level::copy(both[0], job.weights + (job.groups - 1) * 4 * kCoupledRows);
  return cut;
}

template <class Level>
void sum_up_all(const std::int8_t* block, std::size_t groups, std::uint8_t* sums, std::uint16_t* order) {
  for (std::size_t g = 0; g < groups; ++g, block += 4 * kCoupledRows, sums += kSums) {
    Level::sum_up(block, sums);
    order[g] = static_cast<std::uint16_t>(g);
  }
  __builtin_memset(sums, Level::kNever, kCoupleBatch * kSums);
}

template <class Level>
std::size_t couple_in_order(const CoupleJob& job) {
  constexpr std::size_t kGroup = 4 * kCoupledRows;
  sum_up_all<Level>(job.block, job.groups, job.sums, job.order);
  RowCosts costs;
  CutWeights* cut = job.cut;
  for (std::size_t g = 0; g + 1 < job.groups; g += 2) {
    const typename Level::First first(job.sums + g * kSums);
    std::uint8_t* sums = job.sums + (g + 1) * kSums;
    std::uint16_t* order = job.order + g + 1;
    const std::size_t left = job.groups - g - 1;
    const std::uint32_t second =
        first.search(sums, static_cast<std::uint32_t>(left < kCandidates ? left : kCandidates), costs);
    const std::size_t rows = first.rows(sums + second * kSums);
    const std::uint16_t group = order[second];
    order[second] = order[0];
    order[0] = group;
    // The group that was passed over goes on waiting where the chosen one was.
    __builtin_memcpy(sums + second * kSums, sums, kSums);
    const Couple couple{{job.block + order[-1] * kGroup, job.block + group * kGroup}, {order[-1], group}};
    std::int8_t* to = job.weights + g * kGroup;
    if (rows == 0) {
      Level::copy(couple.weights[0], to);
      Level::copy(couple.weights[1], to + kGroup);
    } else {
      costs.add(rows);
      cut = Level::cut(couple, to, cut);
    }
  }
  if (job.groups % 2 != 0) cut = cut_alone<Level>(job, cut);
  return static_cast<std::size_t>(cut - job.cut);
}

}  // namespace
}  // namespace gristmill
