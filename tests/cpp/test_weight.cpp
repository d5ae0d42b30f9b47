#include <cstdint>
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

ISA_TEST(weight_couples_equal_scalar) {
  Random random(63);
  for (const Range range : kRanges) {
    if (range.least == -128) continue;
    for (const std::size_t groups : {0u, 1u, 2u, 3u, 4u, 9u, 33u, 34u, 35u, 64u, 301u}) {
      for (const Edge edge : {Edge::low, Edge::high}) {
        GuardedBuffer<std::int8_t> block(groups * 4 * kCoupledRows, edge);
        fill(block.span(), range.least, range.greatest, random);
        const auto couple = [&](const WeightKernels& kernels, auto& order, auto& exceeding) {
          GuardedBuffer<std::uint8_t> sums(groups * 16, edge);
          kernels.couple({block.data(), groups, sums.data(), order.data(), exceeding.data()});
        };
        GuardedBuffer<std::uint16_t> order(groups, edge), expected_order(groups, edge);
        GuardedBuffer<std::uint8_t> exceeding((groups + 1) / 2, edge), expected((groups + 1) / 2, edge);
        couple(scalar(), expected_order, expected);
        couple(kernel_table(isa).weight, order, exceeding);
        CHECK_SAME(order.view(), expected_order.view(), "order of " + std::to_string(groups));
        CHECK_SAME(exceeding.view(), expected.view(), "rows of " + std::to_string(groups));
      }
    }
  }
}
