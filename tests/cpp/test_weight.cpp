#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "guarded_buffer.h"
#include "harness.h"
#include "kernel_table.h"

using namespace gristmill;
using namespace harness;

namespace {

const WeightKernels& scalar() { return kernel_table(Isa::scalar).weight; }

void fill(std::span<std::int8_t> weights, int least, int greatest, Random& random) {
  for (std::int8_t& w : weights) w = static_cast<std::int8_t>(random.integer(least, greatest));
}

struct Range {
  int least, greatest;
};

constexpr Range kRanges[] = {{-128, -128}, {-127, -127}, {127, 127}, {0, 0},    {-1, 1},
                             {-128, 127},  {-127, 127},  {0, 127},   {-70, 70}, {-32, 32}};

/// Row blocks of which the first row exceeds far more often than the last.
void fill_uneven(std::span<std::int8_t> block, Random& random) {
  constexpr int kMost[kCoupledRows] = {127, 90, 80, 40};
  for (std::size_t i = 0; i < block.size(); ++i) {
    const std::size_t row = i / 4 % kCoupledRows;
    const int least = row == 0 ? kMost[0] - 60 : -kMost[row];
    block[i] = static_cast<std::int8_t>(random.integer(least, kMost[row]));
  }
}

const std::vector<std::size_t> kCounts{0, 1, 2, 31, 32, 33, 63, 64, 65, 147, 8159, 8160, 8161, 20000};

}  // namespace

TEST(scalar_weight_totals_of_a_few) {
  const std::int8_t weights[] = {-128, 127, 0, 3, -5};
  const WeightTotals totals = scalar().total(weights, 5);
  CHECK_EQ(totals.sum, -3);
  CHECK_EQ(totals.magnitude, 263);
  CHECK_EQ(totals.least, -128);
  CHECK_EQ(scalar().total(weights + 1, 1).least, 0);
  CHECK_EQ(scalar().count_nonzero(weights, 5), 4u);
}

ISA_TEST(weight_totals_equal_scalar) {
  const WeightKernels& kernels = kernel_table(isa).weight;
  Random random(61);
  for (const Range range : kRanges) {
    for (const std::size_t count : kCounts) {
      for (const Edge edge : {Edge::low, Edge::high}) {
        GuardedBuffer<std::int8_t> weights(count, edge);
        fill(weights.span(), range.least, range.greatest, random);
        const WeightTotals expected = scalar().total(weights.data(), count);
        const WeightTotals totals = kernels.total(weights.data(), count);
        CHECK_EQ(totals.sum, expected.sum);
        CHECK_EQ(totals.magnitude, expected.magnitude);
        CHECK_EQ(totals.least, expected.least);
        CHECK_EQ(kernels.count_nonzero(weights.data(), count), scalar().count_nonzero(weights.data(), count));
      }
    }
  }
}

ISA_TEST(weight_interleave_moves_every_weight) {
  Random random(62);
  for (const std::size_t quads : {0u, 1u, 2u, 5u}) {
    for (const std::size_t taps : {1u, 2u, 3u, 7u, 8u, 9u, 15u, 16u, 25u, 49u}) {
      for (const Edge edge : {Edge::low, Edge::high}) {
        GuardedBuffer<std::int8_t> from(quads * taps * 4, edge), to(quads * taps * 4, edge);
        fill(from.span(), -128, 127, random);
        std::vector<std::int8_t> expected(from.size());
        for (std::size_t i = 0; i < expected.size(); ++i)
          expected[i] = from[i / (4 * taps) * 4 * taps + i % 4 * taps + i / 4 % taps];
        kernel_table(isa).weight.interleave(from.data(), quads, taps, to.data());
        CHECK_SAME(to.view(), std::span<const std::int8_t>(expected),
                   std::to_string(quads) + " of " + std::to_string(taps));
      }
    }
  }
}

/// By the rule as it is written, step by step.
TEST(scalar_weight_couples_are_the_best_of_the_next) {
  Random random(64);
  for (const int most : {0, 60, 70, 80, 127}) {
    const std::size_t groups = most == 0 ? 301 : 2001;
    std::vector<std::int8_t> block(groups * 4 * kCoupledRows), weights(block.size());
    most == 0 ? fill_uneven(block, random) : fill(block, -most, most, random);
    const auto exceeds = [&](std::size_t a, std::size_t b, std::size_t row) {
      int sums[2][2] = {};
      for (const std::size_t group : {a, b})
        for (std::size_t i = 0; i < 4; ++i) {
          const int weight = block[(group * kCoupledRows + row) * 4 + i];
          sums[i / 2][weight < 0 ? 1 : 0] += std::abs(weight);
        }
      return std::max({sums[0][0], sums[0][1], sums[1][0], sums[1][1]}) > kCoupleSum;
    };
    std::vector<std::size_t> left(groups), expected;
    std::iota(left.begin(), left.end(), 0);
    int exceeding[kCoupledRows] = {};  // couples
    while (left.size() > 1) {
      const int fewest = *std::ranges::min_element(exceeding);
      std::vector<int> costs;
      for (std::size_t i = 1; i < left.size() && left[i] <= left[0] + kCandidates; ++i) {
        costs.push_back(0);
        for (std::size_t row = 0; row < kCoupledRows; ++row)
          if (exceeds(left[0], left[i], row)) costs.back() += std::min(4 + exceeding[row] - fewest, 127);
      }
      const auto best = std::ranges::min_element(costs) - costs.begin() + 1;
      const std::size_t second = left[static_cast<std::size_t>(best)];
      for (std::size_t row = 0; row < kCoupledRows; ++row) exceeding[row] += exceeds(left[0], second, row);
      expected.insert(expected.end(), {left[0], second});
      left.erase(left.begin() + best);
      left.erase(left.begin());
    }
    expected.push_back(left[0]);
    std::vector<std::uint8_t> sums((groups + kCandidates) * 16);
    std::vector<std::uint16_t> order(groups);
    std::vector<CutWeights> cut(groups * kCoupledRows);
    scalar().couple({block.data(), groups, sums.data(), order.data(), weights.data(), cut.data()}, nullptr);
    CHECK(std::ranges::equal(order, expected));
  }
}

namespace {

/// What a row block is coupled to, between guard pages.
struct Coupled {
  Coupled(std::size_t groups, Edge edge)
      : sums((groups + kCandidates) * 16, edge),
        order(groups, edge),
        weights(groups * 4 * kCoupledRows, edge),
        cut(groups * kCoupledRows, edge) {
    std::ranges::fill(sums.span(), std::uint8_t{0x7E});  // what would fit if it were taken for a group's
  }

  CoupleJob job(const std::int8_t* block) {
    return {block, order.size(), sums.data(), order.data(), weights.data(), cut.data()};
  }

  GuardedBuffer<std::uint8_t> sums;
  GuardedBuffer<std::uint16_t> order;
  GuardedBuffer<std::int8_t> weights;
  GuardedBuffer<CutWeights> cut;
};

void check_same(const Coupled& coupled, const Coupled& expected, std::size_t cuts) {
  CHECK_SAME(coupled.order.view(), expected.order.view(), "order");
  CHECK_SAME(coupled.weights.view(), expected.weights.view(), "weights");
  for (std::size_t i = 0; i < cuts; ++i) {
    CHECK_EQ(coupled.cut.view()[i].group, expected.cut.view()[i].group);
    CHECK_EQ(coupled.cut.view()[i].row, expected.cut.view()[i].row);
    CHECK(std::ranges::equal(coupled.cut.view()[i].weights, expected.cut.view()[i].weights));
  }
}

}  // namespace

ISA_TEST(weight_couples_equal_scalar_alone_and_by_twos) {
  const auto couple = kernel_table(isa).weight.couple;
  Random random(63);
  for (const Range range : kRanges) {
    for (const std::size_t groups : {0u, 1u, 2u, 3u, 4u, 9u, 33u, 48u, 49u, 50u, 51u, 64u, 301u}) {
      for (const Edge edge : {Edge::low, Edge::high}) {
        using Block = GuardedBuffer<std::int8_t>;
        const std::size_t size = groups * 4 * kCoupledRows;
        Block blocks[2] = {Block(size, edge), Block(size, edge)};
        range.least == -128 ? fill_uneven(blocks[0].span(), random)
                            : fill(blocks[0].span(), range.least, range.greatest, random);
        fill(blocks[1].span(), -127, 127, random);
        Coupled expected[2] = {Coupled(groups, edge), Coupled(groups, edge)};
        Coupled both[2] = {Coupled(groups, edge), Coupled(groups, edge)};
        Coupled alone(groups, edge);
        std::size_t counts[2];
        for (int i : {0, 1}) {
          const CutCounts cuts = scalar().couple(expected[i].job(blocks[i].data()), nullptr);
          counts[i] = cuts.one;
          CHECK_EQ(cuts.other, 0u);
        }
        CHECK_EQ(couple(alone.job(blocks[0].data()), nullptr).one, counts[0]);
        check_same(alone, expected[0], counts[0]);
        const CoupleJob other = both[1].job(blocks[1].data());
        const CutCounts cuts = couple(both[0].job(blocks[0].data()), &other);
        CHECK_EQ(cuts.one, counts[0]);
        CHECK_EQ(cuts.other, counts[1]);
        for (int i : {0, 1}) check_same(both[i], expected[i], counts[i]);
      }
    }
  }
}
