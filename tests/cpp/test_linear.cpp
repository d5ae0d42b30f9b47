#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gristmill/linear.h"
#include "guarded_buffer.h"
#include "harness.h"

using namespace gristmill;
using harness::Edge;
using harness::GuardedBuffer;
using harness::Random;

namespace {

/// The same weights dense, or in one of their sparse formats: all in turn.
PackedLinear pack(std::span<const std::int8_t> w, std::size_t channels, std::size_t k, int round, Isa isa) {
  if (round % 3 == 0) return {LinearWeights<std::int8_t>{w.data(), channels, k, k, 1}, isa};
  return {CsrMatrix<std::int8_t>::from_dense(w, channels, k),
          round % 3 == 1 ? SparseKind::quads : SparseKind::blocks, isa};
}

/// The accumulators of a layer of bytes, by the definition.
std::vector<std::int32_t> product(std::span<const std::int8_t> w, std::size_t channels,
                                  const LinearInput& input) {
  const auto* x = static_cast<const std::uint8_t*>(input.data);
  std::vector<std::int32_t> sums;
  for (std::size_t n = 0; n < input.rows; ++n)
    for (std::size_t m = 0; m < channels; ++m) {
      std::int64_t sum = 0;
      for (std::size_t i = 0; i < input.k; ++i) {
        const int byte = x[n * input.k + i];
        const int v = input.type == DType::u8 ? byte : static_cast<std::int8_t>(byte);
        sum += std::int64_t{w[m * input.k + i]} * (v - input.zero_point);
      }
      sums.push_back(static_cast<std::int32_t>(sum));
    }
  return sums;
}

}  // namespace

ISA_TEST(linear_s8_equals_the_definition) {
  Random random(23);
  Workspace workspace;
  for (int round = 0; round < (harness::quick() ? 60 : 400); ++round) {
    const Edge edge = round % 4 < 2 ? Edge::low : Edge::high;
    const auto rows = static_cast<std::size_t>(round % 5 == 0 ? 1 : random.integer(1, round % 5 * 35));
    const auto channels = static_cast<std::size_t>(random.integer(1, 90)),
               k = static_cast<std::size_t>(random.integer(1, round % 7 == 0 ? 900 : 200));
    GuardedBuffer<std::int8_t> w(channels * k, edge);
    GuardedBuffer<std::uint8_t> x(rows * k, edge);
    for (auto& v : w.span())
      if (round % 3 == 0 || random.integer(0, 99) < round % 100)
        v = static_cast<std::int8_t>(random.integer(round % 2 == 0 ? -127 : -128, 127));
    for (auto& v : x.span()) v = static_cast<std::uint8_t>(random.integer(0, 255));
    const bool u8 = round % 2 == 0;
    const std::int32_t zero = static_cast<std::int32_t>(random.integer(0, 255)) - (u8 ? 0 : 128);
    GuardedBuffer<std::int32_t> y(rows * channels, edge);
    const LinearInput input{x.data(), u8 ? DType::u8 : DType::s8, rows, k, zero};
    const std::vector<std::int32_t> expected = product(w.view(), channels, input);
    linear(pack(w.view(), channels, k, round, isa), input, OutputStage({}, channels, false), nullptr,
           y.data(), 1 + round % 4, workspace);
    CHECK_SAME(y.view(), std::span<const std::int32_t>(expected), "round " + std::to_string(round));
  }
}

/// Whatever the number of rows that the weights were packed for.
ISA_TEST(linear_s8_of_batches_equals_the_definition) {
  Random random(25);
  Workspace workspace;
  const int rounds = harness::quick() ? 20 : 160;
  int batched = 0;
  for (int round = 0; round < rounds; ++round) {
    const Edge edge = round % 4 < 2 ? Edge::low : Edge::high;
    const auto rows = static_cast<std::size_t>(random.integer(1, round % 5 == 0 ? 300 : 40));
    const auto channels = static_cast<std::size_t>(random.integer(1, round % 3 == 0 ? 300 : 40));
    const auto k = static_cast<std::size_t>(random.integer(0, round % 7 == 0 ? 2000 : 300));
    GuardedBuffer<std::int8_t> w(channels * k, edge);
    GuardedBuffer<std::uint8_t> x(rows * k, edge);
    for (auto& v : w.span()) v = static_cast<std::int8_t>(random.integer(-30, 30) + random.integer(-30, 30));
    for (std::size_t i = 0; i < w.size(); i += 1 + w.size() / 3)
      w[i] = static_cast<std::int8_t>(round % 2 == 0 ? -128 : 127);
    for (auto& v : x.span()) v = static_cast<std::uint8_t>(random.integer(0, 3) * 85);
    const bool u8 = round % 3 != 0;
    const std::int32_t zero = static_cast<std::int32_t>(random.integer(0, 255)) - (u8 ? 0 : 128);
    const LinearInput input{x.data(), u8 ? DType::u8 : DType::s8, rows, k, zero};
    const PackedLinear packed(LinearWeights<std::int8_t>{w.data(), channels, k, k, 1}, isa, 16);
    batched += packed.batched() ? 1 : 0;
    CHECK(!packed.batched() || batch_pays(16, isa));
    GuardedBuffer<std::int32_t> y(rows * channels, edge);
    linear(packed, input, OutputStage({}, channels, false), nullptr, y.data(), 1 + round % 4, workspace);
    const std::vector<std::int32_t> expected = product(w.view(), channels, input);
    CHECK_SAME(y.view(), std::span<const std::int32_t>(expected), "round " + std::to_string(round));
  }
  CHECK(!batch_pays(16, isa) || 2 * batched > rounds);
}

/// With lanes in eights, where a single row more costs as much as two.
ISA_TEST(batches_pay_that_fill_the_lanes) {
  for (std::size_t rows = 0; rows < 200; ++rows) {
    const bool full = rows == 7 || rows == 8 || rows == 9 || (rows >= 13 && rows <= 17) || rows >= 20;
    CHECK_EQ(batch_pays(rows, isa), isa == Isa::avx2 && full);
  }
  const std::vector<std::int8_t> few(64 * 64, 1), many(64 * 64, 127);
  const auto batched = [&](const std::vector<std::int8_t>& w, std::size_t rows) {
    return PackedLinear(LinearWeights<std::int8_t>{w.data(), 64, 64, 64, 1}, isa, rows).batched();
  };
  CHECK_EQ(batched(few, 16), isa == Isa::avx2);
  CHECK(!batched(few, 1));
  CHECK(!batched(many, 16));  // for every sum of theirs would have to be cut
}

ISA_TEST(linear_f32_is_exact_in_whole_numbers) {
  Random random(24);
  Workspace workspace;
  Epilogue epilogue;
  epilogue.output = DType::f32;
  for (int round = 0; round < (harness::quick() ? 40 : 200); ++round) {
    const Edge edge = round % 2 == 0 ? Edge::low : Edge::high;
    const auto size = [&](std::int64_t most) { return static_cast<std::size_t>(random.integer(1, most)); };
    const std::size_t rows = size(1 + round % 3 * 70), channels = size(90), k = size(300);
    GuardedBuffer<float> w(channels * k, edge), x(rows * k, edge), y(rows * channels, edge);
    for (auto& v : w.span())
      if (random.integer(0, 99) < round % 100) v = static_cast<float>(random.integer(-100, 100));
    for (auto& v : x.span()) v = static_cast<float>(random.integer(-100, 100));
    std::vector<float> expected;
    for (std::size_t n = 0; n < rows; ++n)
      for (std::size_t m = 0; m < channels; ++m) {
        float sum = 0;
        for (std::size_t i = 0; i < k; ++i) sum += w[m * k + i] * x[n * k + i];
        expected.push_back(sum);
      }
    const auto packed = round % 2 == 0 ? PackedLinear(LinearWeights<float>{w.data(), channels, k, k, 1}, isa)
                                       : PackedLinear(CsrMatrix<float>::from_dense(w.view(), channels, k),
                                                      SparseKind::singles, isa);
    linear(packed, {x.data(), DType::f32, rows, k}, OutputStage(epilogue, channels, true), nullptr, y.data(),
           1 + round % 4, workspace);
    for (float& value : y.span()) value += 0.0f;  // -0 is as good as 0
    CHECK_SAME(y.view(), std::span<const float>(expected), "round " + std::to_string(round));
  }
}
