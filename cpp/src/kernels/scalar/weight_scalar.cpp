#include "kernels/couple_order.h"
#include "weight_kernels.h"

namespace gristmill {
namespace {

int magnitude_of(std::int8_t weight) { return weight < 0 ? -weight : weight; }

WeightTotals total(const std::int8_t* weights, std::size_t count) {
  WeightTotals totals{};
  for (std::size_t i = 0; i < count; ++i) {
    totals.sum += weights[i];
    totals.magnitude += magnitude_of(weights[i]);
    if (weights[i] < totals.least) totals.least = weights[i];
  }
  return totals;
}

std::size_t count_nonzero(const std::int8_t* weights, std::size_t count) {
  std::size_t found = 0;
  for (std::size_t i = 0; i < count; ++i) found += weights[i] != 0;
  return found;
}

void interleave(const std::int8_t* from, std::size_t quads, std::size_t taps, std::int8_t* to) {
  for (std::size_t quad = 0; quad < quads; ++quad, from += 4 * taps)
    for (std::size_t tap = 0; tap < taps; ++tap)
      for (std::size_t c = 0; c < 4; ++c) *to++ = from[c * taps + tap];
}

struct ScalarCouples {
  class First {
   public:
    explicit First(const std::uint8_t* sums) {
      for (std::size_t i = 0; i < kSums; ++i) sums_[i] = sums[i];
    }
    std::size_t rows(const std::uint8_t* second) const {
      std::size_t found = 0;
      for (std::size_t i = 0; i < kSums; ++i)
        if (sums_[i] + second[i] > kCoupleSum) found |= std::size_t{1} << i / 4;
      return found;
    }
    std::uint32_t search(const std::uint8_t* sums, std::uint64_t taken, const RowCosts& costs) const {
      std::uint32_t best = 0, least = ~std::uint32_t{0};
      for (std::uint32_t i = 0; i < kCandidates && least > 0; ++i) {
        if ((taken >> i & 1) != 0) continue;
        const std::uint32_t cost = costs.sum(rows(sums + i * kSums));
        if (cost >= least) continue;
        least = cost;
        best = i;
      }
      return best;
    }

   private:
    std::uint8_t sums_[kSums];
  };

  /// [row][pair][sign]
  static void sum_up(const std::int8_t* weights, std::uint8_t* sums) {
    for (std::size_t i = 0; i < kSums; ++i) sums[i] = 0;
    for (std::size_t i = 0; i < 4 * kCoupledRows; ++i) {
      std::uint8_t& sum = sums[i / 2 * 2 + (weights[i] < 0 ? 1 : 0)];
      sum = static_cast<std::uint8_t>(sum + magnitude_of(weights[i]));
    }
  }

  static void copy(const std::int8_t* from, std::int8_t* to) {
    for (std::size_t i = 0; i < 4 * kCoupledRows; ++i) to[i] = from[i];
  }

  static CutWeights* cut(const Couple& couple, std::int8_t* to, CutWeights* cut) {
    for (std::size_t i = 0; i < 2 * kCoupledRows; ++i) {
      const std::size_t row = i % kCoupledRows, second = i / kCoupledRows;
      CutWeights rest{couple.groups[second], static_cast<std::uint16_t>(row), {}};
      bool exceeds = false;
      for (std::size_t w = 0; w < 4; ++w) {
        const int weight = couple.weights[second][4 * row + w], kept = keep(couple, second, row, w);
        to[4 * i + w] = static_cast<std::int8_t>(kept);
        rest.weights[w] = static_cast<std::int8_t>(weight - kept);
        exceeds = exceeds || kept != weight;
      }
      if (exceeds) *cut++ = rest;
    }
    return cut;
  }

 private:
  /// What is left of a weight: what those behind it in its sum leave room for.
  static int keep(const Couple& couple, std::size_t second, std::size_t row, std::size_t w) {
    const int weight = couple.weights[second][4 * row + w], sign = weight < 0 ? -1 : 1;
    int room = kCoupleSum;
    for (std::size_t i = 2 * second + w % 2 + 1; i < 4; ++i) {
      const int other = sign * couple.weights[i / 2][4 * row + w / 2 * 2 + i % 2];
      room -= other > 0 ? other : 0;
    }
    const int left = room < 0 ? 0 : room;
    return sign * (sign * weight < left ? sign * weight : left);
  }
};

}  // namespace

void install_weight_scalar(WeightKernels& slots) {
  slots = {total, count_nonzero, interleave, couple_in_order<ScalarCouples>};
}

}  // namespace gristmill
