#include "gristmill/calibrate.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "gristmill/error.h"
#include "kernel_table.h"

namespace gristmill {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTurns = 15;  // what the time is divided for
constexpr int kFewestTurns = 5;
constexpr int kMostTurns = 1000;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// A loop to be timed: `run(amount)` returns how many operations that were.
class Meter {
 public:
  Meter(Rate* result, std::function<double(std::uint64_t)> run) : result_(result), run_(std::move(run)) {}

  /// Finds the amount of work that lasts at least `slice` seconds.
  void warm_up(double slice) {
    for (;; amount_ *= 2)
      if (const auto start = Clock::now(); run_(amount_) >= 0 && seconds_since(start) >= slice) return;
  }
  void take_turn() {
    const auto start = Clock::now();
    const double operations = run_(amount_);
    rates_.push_back(1e-9 * operations / seconds_since(start));
  }
  void finish() {
    std::ranges::sort(rates_);
    *result_ = {rates_.back(), rates_[rates_.size() / 2], static_cast<int>(rates_.size())};
  }

 private:
  Rate* result_;
  std::function<double(std::uint64_t)> run_;
  std::uint64_t amount_ = 1;
  std::vector<double> rates_;
};

using Arithmetic = std::uint64_t (*)(std::uint64_t, std::uint32_t*);

Meter arithmetic_meter(Rate& result, Arithmetic kernel) {
  return {&result, [kernel, sink = std::uint32_t{1}](std::uint64_t rounds) mutable {
            return static_cast<double>(kernel(rounds, &sink));
          }};
}

Meter read_meter(ReadBandwidth& read, const CalibrateKernels& kernels) {
  // Written to, because untouched pages would all be the same page of zeros.
  const auto buffer =
      std::make_shared<std::vector<std::uint64_t>>(read.buffer_bytes / sizeof(std::uint64_t), 1);
  const std::size_t blocks = read.buffer_bytes / kReadBlock;
  return {&read.gigabytes, [kernel = kernels.read, buffer, blocks](std::uint64_t passes) {
            kernel(buffer->data(), blocks, passes);
            return static_cast<double>(blocks * kReadBlock) * static_cast<double>(passes);
          }};
}

void measure(std::vector<Meter>& meters, double seconds) {
  const auto start = Clock::now();
  for (Meter& meter : meters) meter.warm_up(seconds / (kTurns * static_cast<double>(meters.size())));
  for (int turn = 0; turn < kMostTurns && (turn < kFewestTurns || seconds_since(start) < seconds); ++turn)
    for (Meter& meter : meters) meter.take_turn();
  for (Meter& meter : meters) meter.finish();
}

std::size_t whole_blocks(std::size_t bytes) { return bytes / kReadBlock * kReadBlock; }

}  // namespace

std::vector<ReadBandwidth> read_plan(const std::vector<CacheInfo>& caches) {
  static const std::vector<CacheInfo> kUsual{{1, 32 << 10, 1}, {2, 256 << 10, 1}};
  constexpr std::size_t kLeastDram = std::size_t{64} << 20, kMostDram = std::size_t{512} << 20;
  const bool assumed = caches.empty();
  std::vector<ReadBandwidth> plan;
  std::size_t below = 0, last = 0;
  for (const CacheInfo& cache : assumed ? kUsual : caches) {
    const std::size_t bytes = below == 0 ? cache.bytes / 4 * 3 : std::min(cache.bytes / 2, 8 * below);
    last = std::max(last, cache.bytes);
    if (bytes <= below || bytes < kReadBlock) continue;  // cannot be told from the level below
    plan.push_back({std::string("L").append(std::to_string(cache.level)), whole_blocks(bytes), assumed, {}});
    below = cache.bytes;
  }
  const std::size_t dram = assumed ? kMostDram / 2 : std::clamp(4 * last, kLeastDram, kMostDram);
  if (dram >= 2 * last) plan.push_back({"DRAM", dram, assumed, {}});
  return plan;
}

Calibration calibrate(Isa isa, double seconds) {
  if (!(seconds > 0 && seconds <= 60))
    throw Error(ErrorKind::argument, "seconds",
                "expected more than 0 and at most 60, got " + std::to_string(seconds));
  const CalibrateKernels& kernels = kernel_table(isa).calibrate;
  Calibration result;
  result.isa = isa;
  result.reads = read_plan(cpu_caches());
  std::vector<Meter> meters;
  meters.push_back(arithmetic_meter(result.int8_macs, kernels.int8_macs));
  meters.push_back(arithmetic_meter(result.f32_fmas, kernels.f32_fmas));
  if (kernels.int8_saturating_macs != nullptr)
    meters.push_back(arithmetic_meter(result.int8_saturating_macs.emplace(), kernels.int8_saturating_macs));
  for (ReadBandwidth& read : result.reads) meters.push_back(read_meter(read, kernels));
  measure(meters, seconds);
  return result;
}

}  // namespace gristmill
