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

/// Of all rows together.
std::size_t steps_of(std::span<const std::vector<Coupler::Step>> excess) {
  std::size_t most = 0;
  for (const auto& steps : excess) most = std::max(most, steps.size());
  return most;
}

}  // namespace

Coupler::Coupler(std::size_t groups, const KernelTable& kernels) : couple_(kernels.weight.couple) {
  for (Result& result : results_) {
    result.sums.resize((groups + kCandidates) * kBlockBytes);
    result.order.resize(groups);
    result.weights.resize(groups * kBlockBytes);
    result.cut.resize(groups * kCoupledRows);
  }
}

CoupleJob Coupler::job(const std::int8_t* block, std::size_t which) {
  Result& result = results_[which];
  return {block,
          result.order.size(),
          result.sums.data(),
          result.order.data(),
          result.weights.data(),
          result.cut.data()};
}

void Coupler::couple(const std::int8_t* block, const std::int8_t* other) {
  const CoupleJob second = job(other, 1);
  const CutCounts cuts = couple_(job(block, 0), other != nullptr ? &second : nullptr);
  results_[0].cuts = cuts.one;
  results_[1].cuts = cuts.other;
}

std::span<const std::vector<Coupler::Step>> Coupler::excess(std::size_t which) {
  for (auto& steps : excess_) steps.clear();
  for (auto& alone : alone_) alone.clear();
  for (CutWeights& cut : std::span(results_[which].cut).first(results_[which].cuts)) {
    std::uint64_t sums = sums_of(cut.weights);
    for (; !fit(sums); sums = sums_of(cut.weights)) {
      const Entry entry = take_entry(cut);
      place(cut.row, entry, sums_of(entry.weights.data()));
    }
    place(cut.row, {cut.group, std::to_array(cut.weights)}, sums);
  }
  return excess_;
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

bool CoupledWeights::pay(const std::int8_t* packed, std::size_t blocks, std::size_t groups,
                         const KernelTable& kernels) {
  if (groups > kMostGroups) return false;
  Coupler coupler(groups, kernels);
  const std::size_t sample =
      std::clamp(kSampledGroups / std::max<std::size_t>(groups, 1), kLeastSample, kMostSample);
  const std::size_t judged = std::min(blocks, sample);
  std::size_t steps = 0;
  for (std::size_t i = 0; i < judged; ++i) {
    coupler.couple(packed + blocks * i / judged * groups * kBlockBytes, nullptr);
    steps += steps_of(coupler.excess(0));
  }
  return steps * kGroupsPerStep <= judged * groups;
}

CoupledWeights::CoupledWeights(std::int8_t* packed, std::size_t blocks, std::size_t groups,
                               const KernelTable& kernels)
    : groups_(groups), start_(1, 0) {
  order_.reserve(blocks * groups + kGroupsAhead);
  Coupler coupler(groups, kernels);
  const std::size_t block_bytes = groups * kBlockBytes;
  for (std::size_t block = 0; block < blocks; block += 2) {
    const std::size_t count = std::min<std::size_t>(blocks - block, 2);
    coupler.couple(packed, count == 2 ? packed + block_bytes : nullptr);
    for (std::size_t i = 0; i < count; ++i, packed += block_bytes) {
      std::ranges::copy(coupler.weights(i), packed);
      order_.insert(order_.end(), coupler.order(i).begin(), coupler.order(i).end());
      add_steps(coupler.excess(i));
    }
  }
  order_.resize(blocks * groups + kGroupsAhead);
  excess_group_.shrink_to_fit();
  excess_weights_.shrink_to_fit();
}

void CoupledWeights::add_steps(std::span<const std::vector<Coupler::Step>> excess) {
  const std::size_t first = excess_group_.size(), steps = steps_of(excess);
  excess_group_.resize(first + steps * 2 * kCoupledRows);
  excess_weights_.resize(4 * excess_group_.size());
  for (std::size_t row = 0; row < kCoupledRows; ++row) {
    std::size_t at = first + row;
    for (const auto& [one, other] : excess[row]) {
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
