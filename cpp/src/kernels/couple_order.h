#pragma once

#include "weight_kernels.h"

/// The order in which groups of K are coupled: the first of those left with the one of the next kCandidates
/// that goes best with it, and of equals with the nearest.
///
/// The weights of a group are seen through their *sums*: for each row those of the positive weights of both
/// pairs, and of the magnitudes of the negative ones, which is all that decides which rows of a couple
/// exceed kCoupleSum. A `Level` has
///
///     sum_up(weights, sums)  the sums of a group, kSums bytes in an order of its own
///     First                  what is asked of the first group of a couple; made of its sums
///     First::alone()         the rows that exceed by themselves
///     First::rows(sums)      the rows that exceed with that group
///     First::search(...)     as search() below, of a multiple of kBatch groups
namespace gristmill {
namespace {

/// Groups among which the second of a couple is chosen: more find a better one more seldom than they cost.
constexpr std::uint32_t kCandidates = 32;
constexpr std::size_t kSums = 4 * kCoupledRows;

constexpr std::size_t kRowSets = std::size_t{1} << kCoupledRows;

/// How many rows two sets share.
struct SharedRows {
  constexpr SharedRows() {
    for (std::size_t a = 0; a < kRowSets; ++a)
      for (std::size_t b = 0; b < kRowSets; ++b)
        for (std::size_t row = 0; row < kCoupledRows; ++row) of[a][b] += (a & b) >> row & 1;
  }
  std::uint32_t of[kRowSets][kRowSets] = {};
};
constexpr SharedRows kSharedRows;

/// What it costs that the rows of a set exceed: as the pass over the excess takes as long as the fullest
/// row's, more where much exceeds already. Multiples of kCandidates, so that a cost and the number of a
/// candidate are compared as one number.
struct RowCosts {
  std::uint32_t of[kRowSets];

  RowCosts() {
    for (std::size_t set = 0; set < kRowSets; ++set)
      of[set] = 4 * kCandidates * kSharedRows.of[kRowSets - 1][set];
  }
  void add(std::size_t rows) {
    for (std::size_t set = 0; set < kRowSets; ++set) of[set] += kCandidates * kSharedRows.of[rows][set];
  }
};

/// The least cost and number of candidates first..last; once one costs nothing, of those up to it at least.
template <class First>
std::uint32_t search(const First& chosen, const std::uint8_t* sums, std::uint32_t first, std::uint32_t last,
                     const RowCosts& costs) {
  std::uint32_t best = ~std::uint32_t{0};
  for (std::uint32_t i = first; i < last && best >= kCandidates; ++i) {
    const std::uint32_t other = costs.of[chosen.rows(sums + i * kSums)] + i;
    best = other < best ? other : best;
  }
  return best;
}

template <class Level>
std::uint32_t find_second(const typename Level::First& first, const std::uint8_t* sums, std::size_t left,
                          const RowCosts& costs) {
  const auto groups = static_cast<std::uint32_t>(left < kCandidates ? left : kCandidates);
  const std::uint32_t whole = groups / Level::kBatch * Level::kBatch;
  const std::uint32_t best = first.search(sums, whole, costs);
  if (best < kCandidates || whole == groups) return best % kCandidates;
  const std::uint32_t other = search(first, sums, whole, groups, costs);
  return (other < best ? other : best) % kCandidates;
}

template <class Level>
void couple_in_order(const CoupleJob& job) {
  for (std::size_t g = 0; g < job.groups; ++g) {
    Level::sum_up(job.block + g * 4 * kCoupledRows, job.sums + g * kSums);
    job.order[g] = static_cast<std::uint16_t>(g);
  }
  RowCosts costs;
  for (std::size_t g = 0; g < job.groups; g += 2) {
    const typename Level::First first(job.sums + g * kSums);
    std::size_t rows = first.alone();
    if (g + 1 < job.groups) {
      std::uint8_t* sums = job.sums + (g + 1) * kSums;
      std::uint16_t* order = job.order + g + 1;
      const std::uint32_t second = find_second<Level>(first, sums, job.groups - g - 1, costs);
      rows = first.rows(sums + second * kSums);
      const std::uint16_t group = order[second];
      order[second] = order[0];
      order[0] = group;
      // The group that was passed over goes on waiting where the chosen one was.
      __builtin_memcpy(sums + second * kSums, sums, kSums);
      if (rows != 0) costs.add(rows);
    }
    job.exceeding[g / 2] = static_cast<std::uint8_t>(rows);
  }
}

}  // namespace
}  // namespace gristmill
