#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "dense_kernels.h"
#include "kernel_table.h"

/// Brings packed weights into the form of DenseCouples: finds the couples, and cuts off what exceeds them.
///
/// Any two groups of K of a row block may be a couple, so a group takes the best of the next few that are
/// left. Of normally distributed weights whose greatest is 127, a quarter of all couples of neighbours would
/// exceed in each row; chosen ones do in a tenth of it where K is some hundreds, in more where few groups are
/// there to choose from.
namespace gristmill {

/// Couples one row block of weights, [groups][kCoupledRows][4], or two at a time.
class Coupler {
 public:
  struct Entry {
    std::uint32_t group;
    std::array<std::int8_t, 4> weights;
  };

  using Step = std::pair<Entry, Entry>;

  Coupler(std::size_t groups, const KernelTable& kernels);

  /// `other` may be null.
  void couple(const std::int8_t* block, const std::int8_t* other);

  /// Results of the first block or of the other one, until the next call.
  const std::vector<std::uint16_t>& order(std::size_t which) const { return results_[which].order; }
  /// In that order, less the excess.
  const std::vector<std::int8_t>& weights(std::size_t which) const { return results_[which].weights; }
  /// The further pass over the excess: of each row as many steps as the fullest has.
  std::span<const std::vector<Step>> excess(std::size_t which);

 private:
  struct Result {
    std::vector<std::uint8_t> sums;
    std::vector<std::uint16_t> order;
    std::vector<std::int8_t> weights;
    std::vector<CutWeights> cut;
    std::size_t cuts;
  };
  /// A step of one entry, and the sums of that.
  struct Alone {
    std::size_t step;
    std::uint64_t sums;
  };

  CoupleJob job(const std::int8_t* block, std::size_t which);
  void place(std::size_t row, const Entry& entry, std::uint64_t sums);

  CutCounts (*couple_)(const CoupleJob& job, const CoupleJob* other);
  std::array<Result, 2> results_;
  std::array<std::vector<Step>, kCoupledRows> excess_;
  std::array<std::vector<Alone>, kCoupledRows> alone_;
};

/// What couples of a layer add to its packed weights.
class CoupledWeights {
 public:
  /// Whether kernels are faster with them than the general one is: judged by some of the row blocks. Never of
  /// more groups than an order has numbers for.
  static bool pay(const std::int8_t* packed, std::size_t blocks, std::size_t groups,
                  const KernelTable& kernels);

  CoupledWeights() = default;
  /// Changes `packed`, [blocks][groups][kCoupledRows][4], at a time.
  CoupledWeights(std::int8_t* packed, std::size_t blocks, std::size_t groups, const KernelTable& kernels);

  bool cut() const { return !excess_group_.empty(); }
  std::size_t bytes() const {
    return excess_weights_.size() + order_.size() * sizeof(std::uint16_t) +
           (start_.size() + excess_group_.size()) * sizeof(std::uint32_t);
  }
  /// From that row block on.
  DenseCouples at(std::size_t block) const;

 private:
  void add_steps(std::span<const std::vector<Coupler::Step>> excess);

  std::size_t groups_ = 0;
  std::vector<std::uint16_t> order_;
  std::vector<std::uint32_t> start_, excess_group_;
  std::vector<std::int8_t> excess_weights_;
};

}  // namespace gristmill
