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
  static constexpr std::uint32_t kBatch = 1;

  class First {
   public:
    explicit First(const std::uint8_t* sums) {
      for (std::size_t i = 0; i < kSums; ++i) sums_[i] = sums[i];
    }
    std::size_t alone() const {
      constexpr std::uint8_t kNone[kSums] = {};
      return rows(kNone);
    }
    std::size_t rows(const std::uint8_t* second) const {
      std::size_t found = 0;
      for (std::size_t i = 0; i < kSums; ++i)
        if (sums_[i] + second[i] > kCoupleSum) found |= std::size_t{1} << i / 4;
      return found;
    }
    std::uint32_t search(const std::uint8_t* sums, std::uint32_t groups, const RowCosts& costs) const {
      return gristmill::search(*this, sums, 0, groups, costs);
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
};

}  // namespace

void install_weight_scalar(WeightKernels& slots) {
  slots = {total, count_nonzero, interleave, couple_in_order<ScalarCouples>};
}

}  // namespace gristmill
