#pragma once

#include <algorithm>
#include <cstddef>

#include "gristmill/cpu.h"

namespace gristmill {

/// Bytes of packed activations, or of packed weights, that a multiplication works on at a time: half of the
/// second-level cache.
inline std::size_t panel_budget() {
  static const std::size_t bytes = [] {
    for (const CacheInfo& cache : cpu_caches())
      if (cache.level == 2) return std::clamp<std::size_t>(cache.bytes / 2, 1 << 16, 1 << 20);
    return std::size_t{1} << 18;
  }();
  return bytes;
}

/// The same for f32 kernels, which slice K themselves. Their panels may outgrow the cache: deep weights are
/// then read less often, and by several lane blocks at a time.
inline std::size_t panel_budget_f32() { return 4 * panel_budget(); }

}  // namespace gristmill
