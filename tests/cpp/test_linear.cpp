#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gristmill/linear.h"
#include "harness.h"

using namespace gristmill;
using harness::Random;

ISA_TEST(linear_s8_equals_the_definition) {
  Random random(23);
  Workspace workspace;
  for (int round = 0; round < (harness::quick() ? 60 : 400); ++round) {
    const auto rows = static_cast<std::size_t>(round % 3 == 0 ? 1 : random.integer(1, 40));
    const auto channels = static_cast<std::size_t>(random.integer(1, 90)),
               k = static_cast<std::size_t>(random.integer(1, 200));
    std::vector<std::int8_t> w(channels * k);
    std::vector<std::uint8_t> x(rows * k);
    for (auto& v : w) v = static_cast<std::int8_t>(random.integer(-127, 127));
    for (auto& v : x) v = static_cast<std::uint8_t>(random.integer(0, 255));
    const bool u8 = round % 2 == 0;
    const std::int32_t zero = static_cast<std::int32_t>(random.integer(0, 255)) - (u8 ? 0 : 128);
    std::vector<std::int32_t> y(rows * channels), expected;
    for (std::size_t n = 0; n < rows; ++n)
      for (std::size_t m = 0; m < channels; ++m) {
        std::int64_t sum = 0;
        for (std::size_t i = 0; i < k; ++i) {
          const int v = u8 ? x[n * k + i] : static_cast<std::int8_t>(x[n * k + i]);
          sum += std::int64_t{w[m * k + i]} * (v - zero);
        }
        expected.push_back(static_cast<std::int32_t>(sum));
      }
    const PackedLinear packed(LinearWeights<std::int8_t>{w.data(), channels, k, k, 1}, isa);
    linear(packed, {x.data(), u8 ? DType::u8 : DType::s8, rows, k, zero}, OutputStage({}, channels, false),
           nullptr, y.data(), 1 + round % 2, workspace);
    CHECK_SAME(std::span<const std::int32_t>(y), std::span<const std::int32_t>(expected),
               "round " + std::to_string(round));
  }
}
