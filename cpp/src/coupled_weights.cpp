#include "coupled_weights.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <span>
#include <utility>

namespace gristmill {
namespace {

constexpr std::size_t kBlockBytes = kCoupledRows * 4;
constexpr std::size_t kMostGroups = std::size_t{std::numeric_limits<std::uint16_t>::max()} + 1;
/// A step of the pass over the excess takes as long as six groups of K save, measured on a Zen 3.
constexpr std::size_t kGroupsPerStep = 6;
/// What is coupled to judge a layer by: as many row blocks as have so many groups, within limits.
constexpr std::size_t kSampledGroups = 1024, kLeastSample = 3, kMostSample = 16;

/// The sums of four weights, those of positive and of negative ones of both pairs, 16 bits each.
std::uint64_t sums_of(const std::int8_t* weights) {
  std::uint64_t sums = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    const std::size_t at = i / 2 * 2 + (weights[i] < 0 ? 1 : 0);
    sums += static_cast<std::uint64_t>(std::abs(int{weights[i]})) << 16 * at;
  }
  return sums;
}

/// Whether none is more than one may be.
bool fit(std::uint64_t sums) {
  constexpr std::uint64_t kEach = 0x0001000100010001;
  return ((sums + kEach * (0x7FFF - kCoupleSum)) & kEach << 15) == 0;
}

/// Takes from the weights what fits one entry.
Coupler::Entry take_entry(CutWeights& rest) {
  Coupler::Entry entry{rest.group, {}};
  for (std::size_t pair = 0; pair < 4; pair += 2) {
    int room[2] = {kCoupleSum, kCoupleSum};  // for positive and for negative weights
    for (std::size_t i = pair; i < pair + 2; ++i) {
      int& left = room[rest.weights[i] < 0 ? 1 : 0];
      const int taken = std::clamp<int>(rest.weights[i], -left, left);
      left -= std::abs(taken);
      rest.weights[i] = static_cast<std::int8_t>(rest.weights[i] - taken);
      entry.weights[i] = static_cast<std::int8_t>(taken);
    }
  }
  return entry;
}

}  // namespace

Coupler::Coupler(std::size_t groups, const KernelTable& kernels)
    : find_order_(kernels.weight.couple),
      sums_((groups + kCoupleBatch) * kBlockBytes),
      order_(groups),
      weights_(groups * kBlockBytes),
      cut_(groups * kCoupledRows) {}

void Coupler::couple(const std::int8_t* block) {
  for (std::size_t row = 0; row < kCoupledRows; ++row) {
    excess_[row].clear();
    alone_[row].clear();
  }
  const std::size_t count =
      find_order_({block, order_.size(), sums_.data(), order_.data(), weights_.data(), cut_.data()});
  for (CutWeights& cut : std::span(cut_).first(count)) {
    std::uint64_t sums = sums_of(cut.weights);
    for (; !fit(sums); sums = sums_of(cut.weights)) {
      const Entry entry = take_entry(cut);
      place(cut.row, entry, sums_of(entry.weights.data()));
    }
    place(cut.row, {cut.group, std::to_array(cut.weights)}, sums);
  }
}

/// In a step whose other entry it goes together with, or in one of its own.
void Coupler::place(std::size_t row, const Entry& entry, std::uint64_t sums) {
  auto& steps = excess_[row];
  auto& alone = alone_[row];
  const auto found = std::ranges::find_if(alone, [&](const Alone& other) { return fit(other.sums + sums); });
  if (found == alone.end()) {
    alone.push_back({steps.size(), sums});
    steps.push_back({entry, {}});
    return;
  }
  steps[found->step].second = entry;
  *found = alone.back();
  alone.pop_back();
}

std::size_t Coupler::steps() const {
  std::size_t most = 0;
  for (const auto& steps : excess_) most = std::max(most, steps.size());
  return most;
}

bool CoupledWeights::pay(const std::int8_t* packed, std::size_t blocks, std::size_t groups,
                         const KernelTable& kernels) {
  if (groups > kMostGroups) return false;
  Coupler coupler(groups, kernels);
  const std::size_t sample =
      std::clamp(kSampledGroups / std::max<std::size_t>(groups, 1), kLeastSample, kMostSample);
  const std::size_t judged = std::min(blocks, sample);
  std::size_t steps = 0;
  for (std::size_t i = 0; i < judged; ++i) {
    coupler.couple(packed + blocks * i / judged * groups * kBlockBytes);
    steps += coupler.steps();
  }
  return steps * kGroupsPerStep <= judged * groups;
}

CoupledWeights::CoupledWeights(std::int8_t* packed, std::size_t blocks, std::size_t groups,
                               const KernelTable& kernels)
    : groups_(groups), start_(1, 0) {
  order_.reserve(blocks * groups);
  Coupler coupler(groups, kernels);
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
  const std::size_t first = excess_group_.size(), steps = coupler.steps();
  excess_group_.resize(first + steps * 2 * kCoupledRows);
  excess_weights_.resize(4 * excess_group_.size());
  for (std::size_t row = 0; row < kCoupledRows; ++row) {
    std::size_t at = first + row;
    for (const auto& [one, other] : coupler.excess(row)) {
      for (const Coupler::Entry& entry : {one, other}) {
        excess_group_[at] = entry.group;
        std::memcpy(excess_weights_.data() + 4 * at, entry.weights.data(), 4);
        at += kCoupledRows;
      }
    }
  }
  start_.push_back(static_cast<std::uint32_t>(start_.back() + steps));
}

DenseCouples CoupledWeights::at(std::size_t block) const {
  return {order_.data() + block * groups_, start_.data() + block, excess_group_.data(),
          excess_weights_.data()};
}

}  // namespace gristmill
