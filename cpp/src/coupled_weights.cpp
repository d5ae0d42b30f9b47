#include "coupled_weights.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

namespace gristmill {
namespace {

constexpr std::size_t kBlockBytes = kCoupledRows * 4;
constexpr std::size_t kMostGroups = std::size_t{std::numeric_limits<std::uint16_t>::max()} + 1;
/// A step of the pass over the excess takes as long as six groups of K save, measured on a Zen 3.
constexpr std::size_t kGroupsPerStep = 6;
/// What is coupled to judge a layer by: as many row blocks as have so many groups, within limits.
constexpr std::size_t kSampledGroups = 1024, kLeastSample = 3, kMostSample = 16;

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

Coupler::Coupler(std::size_t groups, const KernelTable& kernels)
    : find_order_(kernels.weight.couple),
      sums_(groups * kBlockBytes),
      order_(groups),
      exceeding_((groups + 1) / 2),
      weights_(2 * exceeding_.size() * kBlockBytes) {}

void Coupler::couple(const std::int8_t* block) {
  find_order_({block, order_.size(), sums_.data(), order_.data(), exceeding_.data()});
  std::int8_t* to = weights_.data();
  for (const std::uint16_t group : order_) {
    std::memcpy(to, block + group * kBlockBytes, kBlockBytes);
    to += kBlockBytes;
  }
  for (std::size_t row = 0; row < kCoupledRows; ++row) {
    excess_[row].clear();
    alone_[row].clear();
  }
  for (std::size_t couple = 0; couple < exceeding_.size(); ++couple) {
    if (exceeding_[couple] == 0) continue;
    for (std::size_t row = 0; row < kCoupledRows; ++row)
      if ((exceeding_[couple] >> row & 1) != 0) cut(couple, row);
  }
}

/// Takes from the weights of each four in order, the first group's before the second's, until they fit.
void Coupler::cut(std::size_t couple, std::size_t row) {
  std::int8_t* first = weights_.data() + couple * 2 * kBlockBytes + row * 4;
  std::int8_t* second = first + kBlockBytes;
  int rest[2][4] = {};
  for (std::size_t pair = 0; pair < 4; pair += 2) {
    std::int8_t* const four[] = {first + pair, first + pair + 1, second + pair, second + pair + 1};
    for (const int sign : {1, -1}) {
      int over = -kCoupleSum;
      for (const std::int8_t* weight : four) over += std::max(0, sign * *weight);
      for (std::size_t i = 0; over > 0; ++i) {
        const int taken = std::clamp(sign * *four[i], 0, over);
        over -= taken;
        *four[i] = static_cast<std::int8_t>(*four[i] - sign * taken);
        rest[i / 2][pair + i % 2] += sign * taken;
      }
    }
  }
  const std::size_t groups = std::min<std::size_t>(2, order_.size() - couple * 2);
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
