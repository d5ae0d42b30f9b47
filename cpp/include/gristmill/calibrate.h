#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "gristmill/cpu.h"
#include "gristmill/isa.h"

/// What this core can do at best, measured now: the bound that kernels are judged by.
///
/// Each unit is driven by a loop that does nothing else (calibrate_kernels.h). All loops take turns, many
/// times, so that a disturbance of some milliseconds hits a few repetitions of each and not one of them
/// wholly. The best repetition is the bound; the median beside it tells how quiet the machine was.
namespace gristmill {

/// Repeated measurements of one rate, in units of 10^9 per second.
struct Rate {
  double best = 0, median = 0;
  int repetitions = 0;

  /// How far the median stays behind the best, 0 to 1: small on a quiet machine.
  double spread() const noexcept { return best > 0 ? 1 - median / best : 0; }
};

/// Sequential reads of a buffer that lives in one level of the memory hierarchy.
struct ReadBandwidth {
  std::string memory;  ///< "L1", "L2", "L3" or "DRAM"
  std::size_t buffer_bytes = 0;
  bool assumed = false;  ///< the cache sizes are not known here and usual ones were assumed
  Rate gigabytes;        ///< 10^9 bytes per second
};

struct Calibration {
  Isa isa{};
  Rate int8_macs;                            ///< exact 8-bit multiply-adds, operands in registers
  std::optional<Rate> int8_saturating_macs;  ///< of faster instructions that saturate, where there are any
  Rate f32_fmas;                             ///< f32 multiply-adds, operands in registers
  std::vector<ReadBandwidth> reads;          ///< nearest memory first
};

/// The buffers that calibrate() reads, from the sizes of the caches: half of a cache, but several times the
/// one below it, and for DRAM four times the last. Usual sizes are assumed if `caches` is empty.
std::vector<ReadBandwidth> read_plan(const std::vector<CacheInfo>& caches);

/// Measures the calling thread's core with the kernels of `isa` in about `seconds`; throws Error(isa) if the
/// level is not supported and Error(argument) unless 0 < seconds <= 60.
Calibration calibrate(Isa isa, double seconds);

}  // namespace gristmill
