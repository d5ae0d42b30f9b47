#include <algorithm>
#include <array>
#include <cstdint>
#include <set>
#include <vector>

#include "coupled_weights.h"
#include "harness.h"

using namespace gristmill;

namespace {

using Row = std::array<int, 4>;

Row row_at(const std::int8_t* weights, std::size_t group, std::size_t row) {
  const std::int8_t* from = weights + (group * kCoupledRows + row) * 4;
  return {from[0], from[1], from[2], from[3]};
}

/// Whether 16 bits hold the sums of four products that two rows of weights make with any bytes.
bool fits(const Row& a, const Row& b) {
  for (std::size_t pair = 0; pair < 4; pair += 2) {
    int greatest = 0, least = 0;
    for (const int w : {a[pair], a[pair + 1], b[pair], b[pair + 1]}) (w > 0 ? greatest : least) += w * 255;
    if (greatest > INT16_MAX || least < INT16_MIN) return false;
  }
  return true;
}

using Fill = std::int8_t (*)(harness::Random&);

constexpr Fill kFills[] = {
    [](harness::Random&) { return std::int8_t{127}; },
    [](harness::Random&) { return std::int8_t{-127}; },
    [](harness::Random& random) { return static_cast<std::int8_t>(random.integer(0, 1) * 254 - 127); },
    [](harness::Random& random) { return static_cast<std::int8_t>(random.integer(-127, 127)); },
    [](harness::Random& random) { return static_cast<std::int8_t>(random.integer(-70, 70)); },
    [](harness::Random& random) { return static_cast<std::int8_t>(random.integer(-32, 32)); },
};

}  // namespace

/// Every group is there once, no sum can saturate, and what kernels add up is what was there.
ISA_TEST(coupled_weights_are_the_same_weights) {
  constexpr std::size_t kBlocks = 5;
  harness::Random random(1);
  for (const Fill fill : kFills) {
    for (const std::size_t groups : {0u, 1u, 2u, 3u, 4u, 5u, 17u, 40u, 91u}) {
      std::vector<std::int8_t> weights(kBlocks * groups * kCoupledRows * 4);
      for (auto& w : weights) w = fill(random);
      std::vector<std::int8_t> packed = weights;
      const CoupledWeights coupled(packed.data(), kBlocks, groups, kernel_table(isa));
      for (std::size_t block = 0; block < kBlocks; ++block) {
        const std::size_t at = block * groups * kCoupledRows * 4;
        const DenseCouples couples = coupled.at(block);
        const std::set<std::uint32_t> order(couples.order, couples.order + groups);
        CHECK_EQ(order.size(), groups);
        for (std::size_t row = 0; row < kCoupledRows; ++row) {
          std::vector<Row> total(groups);
          for (std::size_t g = 0; g < groups; ++g) {
            CHECK(couples.order[g] < groups);
            const Row here = row_at(packed.data() + at, g, row);
            CHECK(fits(here, g + 1 < groups && g % 2 == 0 ? row_at(packed.data() + at, g + 1, row) : Row{}));
            total[couples.order[g]] = here;
          }
          bool more = true;
          for (std::size_t step = couples.start[0]; step < couples.start[1]; ++step) {
            const auto* excess = static_cast<const std::int8_t*>(couples.excess_weights);
            more = more && row_at(excess, 2 * step, row) != Row{};
            CHECK(more ||
                  (row_at(excess, 2 * step, row) == Row{} && row_at(excess, 2 * step + 1, row) == Row{}));
            CHECK(fits(row_at(excess, 2 * step, row), row_at(excess, 2 * step + 1, row)));
            for (std::size_t i = 2 * step; i < 2 * step + 2; ++i) {
              const Row rest = row_at(excess, i, row);
              Row& whole = total[couples.excess_group[i * kCoupledRows + row]];
              for (std::size_t w = 0; w < 4; ++w) whole[w] += rest[w];
            }
          }
          for (std::size_t g = 0; g < groups; ++g) CHECK(total[g] == row_at(weights.data() + at, g, row));
        }
      }
    }
  }
}

TEST(coupled_weights_pay_where_few_rows_exceed) {
  const KernelTable& kernels = kernel_table(Isa::scalar);
  constexpr std::size_t kBlocks = 9, kGroups = 64;
  harness::Random random(2);
  std::vector<bool> pay;
  for (const Fill fill : kFills) {
    std::vector<std::int8_t> weights(kBlocks * kGroups * kCoupledRows * 4);
    for (auto& w : weights) w = fill(random);
    pay.push_back(CoupledWeights::pay(weights.data(), kBlocks, kGroups, kernels));
  }
  CHECK((pay == std::vector<bool>{false, false, false, false, true, true}));
  constexpr std::size_t kMost = 1 << 16;  // groups that an order can number
  const std::vector<std::int8_t> zeros((kMost + 1) * kCoupledRows * 4);
  CHECK(CoupledWeights::pay(zeros.data(), 1, kMost, kernels));
  CHECK(!CoupledWeights::pay(zeros.data(), 1, kMost + 1, kernels));
}
