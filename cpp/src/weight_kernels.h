#pragma once

#include <cstddef>
#include <cstdint>

#include "dense_kernels.h"

/// What is done with int8 weights before they are multiplied: once, but to all of them, and before the first
/// answer.
namespace gristmill {

/// What weights add up to.
struct WeightTotals {
  std::int64_t sum, magnitude;
  std::int8_t least;  ///< at most 0
};

/// What is cut off from the weights of one row and group.
struct CutWeights {
  std::uint16_t group;
  std::uint16_t row;
  std::int8_t weights[4];
};

/// A row block whose groups of K are to be coupled: see DenseCouples. A couple is two neighbours of the
/// order, or its last group alone. Of the four weights of a sum, the first group's before the second's, as
/// much is cut off as does not fit.
struct CoupleJob {
  const std::int8_t* block;  ///< [groups][kCoupledRows][4], none of them -128
  std::size_t groups;        ///< at most 2^16
  std::uint8_t* sums;        ///< [groups + kCandidates][16], for the kernel's own use
  std::uint16_t* order;      ///< [groups]: each group once
  std::int8_t* weights;      ///< [groups][kCoupledRows][4]: in that order, less what is cut off
  CutWeights* cut;           ///< [groups * kCoupledRows]: in that order, of each couple by group and row
};

/// Groups among which the second of a couple is chosen, unless they are taken: more find a better one more
/// seldom than they cost.
constexpr std::size_t kCandidates = 48;

/// How many CutWeights row blocks have; 0 where there is no other.
struct CutCounts {
  std::size_t one, other;
};

struct WeightKernels {
  WeightTotals (*total)(const std::int8_t* weights, std::size_t count);
  std::size_t (*count_nonzero)(const std::int8_t* weights, std::size_t count);
  /// From [quads][4][taps] to [quads][taps][4].
  void (*interleave)(const std::int8_t* from, std::size_t quads, std::size_t taps, std::int8_t* to);
  /// Finds an order by the rule of kernels/couple_order.h, the same at every level, for one row block or for
  /// two of as many groups, which is faster than one by one.
  CutCounts (*couple)(const CoupleJob& job, const CoupleJob* other);
};

}  // namespace gristmill
