#include "coupled_weights.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

namespace gristmill {
namespace {

constexpr std::size_t kBlockBytes = kCoupledRows * 4;
constexpr std::size_t kMostGroups = std::size_t{std::numeric_limits<std::uint16_t>::max()} + 1;
/// Groups among which the second of a couple is chosen: more find a better one more seldom than they cost.
constexpr std::size_t kCandidates = 32;
/// A step of the pass over the excess takes as long as six groups of K save, measured on a Zen 3.
constexpr std::size_t kGroupsPerStep = 6;
/// Row blocks that are coupled to judge a layer by.
constexpr std::size_t kSample = 16;

constexpr std::uint64_t kBytes = 0x0101010101010101, kWords = 0x0001000100010001;
/// What lifts a sum beyond kCoupleSum into the top bit of its word.
constexpr std::uint64_t kLift = kWords * (0x8000 - kCoupleSum - 1);

/// Each byte of `bytes`, at most 127, added to its neighbour.
std::uint64_t add_neighbours(std::uint64_t bytes) {
  return (bytes & 0xFF * kWords) + ((bytes >> 8) & 0xFF * kWords);
}

using PairSums = std::array<std::uint64_t, kCoupledRows>;

/// Rows as sets: where words of 64 bits hold two rows each, those of one word come before those of the next.
constexpr std::size_t bit_of(std::size_t row) { return std::size_t{1} << (row % 2 * 2 + row / 2); }

/// The rows in which two groups exceed, one of them lifted.
std::size_t exceeding_rows(const PairSums& lifted, const PairSums& sums) {
  const auto found = [&](std::size_t i) {
    return (((lifted[i] + sums[i]) | (lifted[i + 1] + sums[i + 1])) >> 15) & kWords;
  };
  const std::uint64_t pairs = found(0) | found(2) << 1, rows = pairs | pairs >> 16;
  return (rows & 3) | (rows >> 30 & 12);
}

/// What it costs that rows exceed: as the pass over the excess takes as long as the fullest row's, more where
/// much exceeds already.
class RowCosts {
 public:
  RowCosts() {
    for (std::size_t row = 0; row < kCoupledRows; ++row) of_[std::size_t{1} << row] = kRow;
    add(0);
  }
  std::uint32_t of(std::size_t rows) const { return of_[rows]; }
  void add(std::size_t rows) {
    for (std::size_t row = 0; row < kCoupledRows; ++row) of_[std::size_t{1} << row] += rows >> row & 1;
    for (std::size_t set = 1; set < of_.size(); ++set)
      of_[set] = of_[set & (set - 1)] + ((set & (set - 1)) == 0 ? of_[set] : of_[set & (~set + 1)]);
  }

 private:
  static constexpr std::uint32_t kRow = 4;
  std::array<std::uint32_t, 1 << kCoupledRows> of_{};  // each set's, the sum of its rows'
};

/// Whether the sums of two entries of a row are what one may be.
bool go_together(const Coupler::Entry& a, const Coupler::Entry& b) {
  for (std::size_t pair = 0; pair < 4; pair += 2) {
    int sums[2] = {};  // of positive and of negative weights
    for (const int weight : {a.weights[pair], a.weights[pair + 1], b.weights[pair], b.weights[pair + 1]})
      sums[weight < 0 ? 1 : 0] += std::abs(weight);
    if (std::max(sums[0], sums[1]) > kCoupleSum) return false;
  }
  return true;
}

}  // namespace

Coupler::Coupler(std::size_t groups)
    : sums_(groups), order_(groups), exceeding_((groups + 1) / 2), weights_(groups * kBlockBytes) {}

void Coupler::couple(const std::int8_t* block) {
  for (std::size_t g = 0; g < sums_.size(); ++g) {
    std::uint64_t eight[kBlockBytes / 8];
    std::memcpy(eight, block + g * kBlockBytes, kBlockBytes);
    for (std::size_t i = 0; i < kBlockBytes / 8; ++i) {
      const std::uint64_t sign = (eight[i] >> 7) & kBytes, negative = sign * 0xFF;
      sums_[g][2 * i] = add_neighbours(eight[i] & ~negative);
      sums_[g][2 * i + 1] = add_neighbours((~eight[i] & negative) + sign);
    }
  }
  find_order();
  for (std::size_t g = 0; g < order_.size(); ++g)
    std::memcpy(weights_.data() + g * kBlockBytes, block + order_[g] * kBlockBytes, kBlockBytes);
  for (std::size_t row = 0; row < kCoupledRows; ++row) {
    excess_[row].clear();
    alone_[row].clear();
  }
  for (std::size_t couple = 0; couple < exceeding_.size(); ++couple) {
    if (exceeding_[couple] == 0) continue;
    for (std::size_t row = 0; row < kCoupledRows; ++row)
      if ((exceeding_[couple] & bit_of(row)) != 0) cut(couple, row);
  }
}

void Coupler::find_order() {
  std::iota(order_.begin(), order_.end(), std::uint16_t{0});
  RowCosts costs;
  for (std::size_t first = 0; first < order_.size(); first += 2) {
    PairSums lifted = sums_[first];
    for (std::uint64_t& sum : lifted) sum += kLift;
    if (first + 1 == order_.size()) {
      exceeding_[first / 2] = static_cast<std::uint8_t>(exceeding_rows(lifted, PairSums{}));
      return;
    }
    const std::size_t end = std::min(order_.size(), first + 1 + kCandidates);
    std::size_t best = first + 1, rows = exceeding_rows(lifted, sums_[best]);
    for (std::size_t second = first + 2; second < end && rows != 0; ++second) {
      const std::size_t other = exceeding_rows(lifted, sums_[second]);
      if (costs.of(other) >= costs.of(rows)) continue;
      rows = other;
      best = second;
    }
    std::swap(sums_[first + 1], sums_[best]);
    std::swap(order_[first + 1], order_[best]);
    exceeding_[first / 2] = static_cast<std::uint8_t>(rows);
    if (rows != 0) costs.add(rows);
  }
}

/// Takes from the weights of each four in order, the first group's before the second's, until they fit.
void Coupler::cut(std::size_t couple, std::size_t row) {
  std::int8_t* weights = weights_.data() + couple * 2 * kBlockBytes + row * 4;
  const std::size_t groups = std::min<std::size_t>(2, order_.size() - couple * 2);
  int rest[2][4] = {};
  for (std::size_t pair = 0; pair < 4; pair += 2) {
    for (const int sign : {1, -1}) {
      int over = -kCoupleSum;
      for (std::size_t i = 0; i < 2 * groups; ++i)
        over += std::max(0, sign * weights[i / 2 * kBlockBytes + pair + i % 2]);
      for (std::size_t i = 0; i < 2 * groups && over > 0; ++i) {
        std::int8_t& weight = weights[i / 2 * kBlockBytes + pair + i % 2];
        const int taken = std::clamp(sign * weight, 0, over);
        over -= taken;
        weight = static_cast<std::int8_t>(weight - sign * taken);
        rest[i / 2][pair + i % 2] += sign * taken;
      }
    }
  }
  for (std::size_t i = 0; i < groups; ++i) add_excess(row, order_[2 * couple + i], rest[i]);
}

void Coupler::add_excess(std::size_t row, std::uint32_t group, int (&rest)[4]) {
  while (std::ranges::any_of(rest, [](int weight) { return weight != 0; })) {
    Entry entry{group, {}};
    for (std::size_t pair = 0; pair < 4; pair += 2) {
      int room[2] = {kCoupleSum, kCoupleSum};  // for positive and for negative weights
      for (std::size_t i = pair; i < pair + 2; ++i) {
        int& left = room[rest[i] < 0 ? 1 : 0];
        const int taken = std::clamp(rest[i], -left, left);
        left -= std::abs(taken);
        rest[i] -= taken;
        entry.weights[i] = static_cast<std::int8_t>(taken);
      }
    }
    place(row, entry);
  }
}

/// In a step whose other entry it goes together with, or in one of its own.
void Coupler::place(std::size_t row, const Entry& entry) {
  auto& alone = alone_[row];
  const auto found = std::ranges::find_if(
      alone, [&](std::size_t step) { return go_together(excess_[row][step].first, entry); });
  if (found == alone.end()) {
    alone.push_back(excess_[row].size());
    excess_[row].push_back({entry, {}});
    return;
  }
  excess_[row][*found].second = entry;
  *found = alone.back();
  alone.pop_back();
}

std::size_t Coupler::steps() const {
  std::size_t most = 0;
  for (const auto& steps : excess_) most = std::max(most, steps.size());
  return most;
}

bool CoupledWeights::pay(const std::int8_t* packed, std::size_t blocks, std::size_t groups) {
  if (groups > kMostGroups) return false;
  Coupler coupler(groups);
  const std::size_t sample = std::min(blocks, kSample);
  std::size_t steps = 0;
  for (std::size_t i = 0; i < sample; ++i) {
    coupler.couple(packed + blocks * i / sample * groups * kBlockBytes);
    steps += coupler.steps();
  }
  return steps * kGroupsPerStep <= sample * groups;
}

CoupledWeights::CoupledWeights(std::int8_t* packed, std::size_t blocks, std::size_t groups)
    : groups_(groups), start_(1, 0) {
  order_.reserve(blocks * groups);
  Coupler coupler(groups);
  for (std::size_t block = 0; block < blocks; ++block, packed += groups * kBlockBytes) {
    coupler.couple(packed);
    std::ranges::copy(coupler.weights(), packed);
    order_.insert(order_.end(), coupler.order().begin(), coupler.order().end());
    add_steps(coupler);
  }
  excess_group_.shrink_to_fit();
  excess_weights_.shrink_to_fit();
}

void CoupledWeights::add_steps(const Coupler& coupler) {
  for (std::size_t step = 0; step < coupler.steps(); ++step) {
    for (const bool second : {false, true}) {
      for (std::size_t row = 0; row < kCoupledRows; ++row) {
        const auto& steps = coupler.excess(row);
        const Coupler::Step both = step < steps.size() ? steps[step] : Coupler::Step{};
        const Coupler::Entry& entry = second ? both.second : both.first;
        excess_group_.push_back(entry.group);
        excess_weights_.insert(excess_weights_.end(), entry.weights.begin(), entry.weights.end());
      }
    }
  }
  start_.push_back(static_cast<std::uint32_t>(start_.back() + coupler.steps()));
}

DenseCouples CoupledWeights::at(std::size_t block) const {
  return {order_.data() + block * groups_, start_.data() + block, excess_group_.data(),
          excess_weights_.data()};
}

}  // namespace gristmill
