#include <cmath>
#include <vector>

#include "gristmill/calibrate.h"
#include "gristmill/error.h"
#include "guarded_buffer.h"
#include "harness.h"
#include "kernel_table.h"

using namespace gristmill;
using harness::Edge;
using harness::GuardedBuffer;

namespace {

using Words = GuardedBuffer<std::uint64_t>;
using Copy = void (*)(const void*, void*, std::size_t);

void fill(Words& words) {
  harness::Random random(words.size());
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = random.next();
}

/// Checks a copy slot against a scalar one at both page edges; an empty slot is one the level lacks.
void check_copy(Copy copy, Copy expected, std::size_t in_block, std::size_t out_block) {
  if (copy == nullptr) return;
  for (Edge edge : {Edge::low, Edge::high})
    for (std::size_t blocks : {0, 1, 2, 33}) {
      Words in(blocks * in_block / 8, edge), out(blocks * out_block / 8, edge);
      std::vector<std::uint64_t> reference(out.size());
      fill(in);
      copy(in.data(), out.data(), blocks);
      expected(in.data(), reference.data(), blocks);
      CHECK_SAME(out.view(), std::span<const std::uint64_t>(reference), "words");
    }
}

/// How many operations `rounds` rounds report; that what they compute depends on where they start.
std::uint64_t operations(std::uint64_t (*slot)(std::uint64_t, std::uint32_t*), std::uint64_t rounds) {
  std::uint32_t first = 1, second = 2;
  const std::uint64_t count = slot(rounds, &first);
  CHECK_EQ(slot(rounds, &second), count);
  CHECK(first != second);
  return count;
}

}  // namespace

ISA_TEST(calibrate_slots_count_their_operations) {
  const CalibrateKernels& kernels = kernel_table(isa).calibrate;
  for (auto slot : {kernels.int8_macs, kernels.f32_fmas, kernels.int8_saturating_macs}) {
    if (slot == nullptr && slot == kernels.int8_saturating_macs) continue;
    const std::uint64_t one = operations(slot, 1);
    CHECK(one > 0);
    CHECK_EQ(operations(slot, 100), 100 * one);
  }
}

ISA_TEST(calibrate_read_reads_every_word) {
  const auto read = kernel_table(isa).calibrate.read;
  for (Edge edge : {Edge::low, Edge::high})
    for (std::size_t blocks : {0, 1, 2, 7}) {
      Words words(blocks * kReadBlock / 8, edge);
      fill(words);
      std::uint64_t sum = 0;
      for (std::uint64_t word : words.view()) sum ^= word;
      for (std::uint64_t passes : {0, 1, 2, 3})
        CHECK_EQ(read(words.data(), blocks, passes), passes % 2 * sum);
    }
}

ISA_TEST(calibrate_copies_equal_scalar) {
  const CalibrateKernels &kernels = kernel_table(isa).calibrate,
                         &scalar = kernel_table(Isa::scalar).calibrate;
  check_copy(kernels.narrow, scalar.narrow, kNarrowBlock, kByteBlock);
  check_copy(kernels.narrow_streaming, scalar.narrow, kNarrowBlock, kByteBlock);
  check_copy(kernels.widen, scalar.widen, kByteBlock, kNarrowBlock);
  check_copy(kernels.widen_streaming, scalar.widen, kByteBlock, kNarrowBlock);
}

TEST(calibrate_plan_fits_the_caches) {
  const auto plan = read_plan({{1, 32 << 10, 1}, {2, 512 << 10, 1}, {3, 32 << 20, 8}});
  CHECK_EQ(plan.size(), std::size_t{4});
  const std::size_t expected[] = {24 << 10, 256 << 10, 4 << 20, 128 << 20};
  const char* names[] = {"L1", "L2", "L3", "DRAM"};
  for (std::size_t i = 0; i < plan.size(); ++i) {
    CHECK(plan[i].memory == names[i]);
    CHECK_EQ(plan[i].buffer_bytes, expected[i]);
    CHECK(!plan[i].assumed);
  }
}

TEST(calibrate_plan_leaves_out_what_cannot_be_told_apart) {
  // A last level of 512 KiB per core behind 1 MiB of L2, and one too large for any buffer of ours.
  const auto small = read_plan({{1, 32 << 10, 1}, {2, 1 << 20, 1}, {3, 512 << 10, 1}});
  CHECK_EQ(small.size(), std::size_t{3});
  CHECK(small.back().memory == "DRAM");
  const auto large = read_plan({{1, 32 << 10, 1}, {3, std::size_t{1} << 30, 64}});
  CHECK_EQ(large.size(), std::size_t{2});
  CHECK(large.back().memory == "L3");
}

TEST(calibrate_plan_of_an_unknown_machine_says_so) {
  const auto plan = read_plan({});
  CHECK(plan.size() >= 2);
  for (const ReadBandwidth& read : plan) CHECK(read.assumed && read.buffer_bytes > 0);
}

TEST(calibrate_seconds_are_checked) {
  for (double bad : {0.0, -1.0, 61.0, std::nan("")}) CHECK_THROWS(Error, calibrate(Isa::scalar, bad));
}

ISA_TEST(calibrate_rates_are_plausible) {
  if (harness::quick()) harness::skip("an emulator's rates say nothing");
  const Calibration measured = calibrate(isa, 0.05);
  CHECK(measured.isa == isa);
  for (const Rate& rate : {measured.int8_macs, measured.f32_fmas}) {
    CHECK(rate.best >= rate.median && rate.median > 0);
    CHECK(rate.best < 1e5);
    CHECK(rate.repetitions >= 5);
    CHECK(rate.spread() >= 0 && rate.spread() < 1);
  }
  for (const ReadBandwidth& read : measured.reads)
    CHECK(read.gigabytes.best > 0.01 && read.gigabytes.best < 1e4);
}
