#pragma once

#include <cstddef>
#include <string>
#include <vector>

/// What this machine is: facts read once from the processor and the operating system.
namespace gristmill {

/// Instruction-set extensions that the levels need, each usable by both the processor and the operating
/// system.
struct CpuFeatures {
  bool avx2 = false;        ///< AVX2, FMA, F16C, BMI1 and BMI2, with the operating system saving YMM state
  bool avx512vnni = false;  ///< AVX-512 F, BW, VL, DQ and VNNI, with the operating system saving ZMM state
  bool avx512vbmi = false;  ///< AVX-512 VBMI beside the above
  bool amx = false;         ///< AMX tiles of int8 beside the above, which this process is allowed to use
  bool intel = false;  ///< made by Intel: one port for all shuffles of 64 bytes, and another that multiplies
  bool neon = false;   ///< Advanced SIMD
  bool neon_dotprod = false;  ///< SDOT and UDOT
  bool neon_i8mm = false;     ///< SMMLA, UMMLA, USMMLA and USDOT
};

struct CacheInfo {
  int level = 0;          ///< 1, 2, 3
  std::size_t bytes = 0;  ///< size of one instance
  int shared_by = 1;      ///< logical processors that share the instance
};

/// The features of the running processor; read on first use.
const CpuFeatures& cpu_features() noexcept;

/// The processor's own name, "unknown" where it cannot be found.
std::string cpu_model();

/// Data and unified caches seen by the first processor, smallest level first; empty where the system does not
/// tell.
std::vector<CacheInfo> cpu_caches();

/// Logical processors that this process may run on (the affinity mask).
int affinity_cores();

/// The control group's CPU quota in cores, 0 where there is none. Reads cgroup v2 `cpu.max` along the whole
/// path up to the root, and v1 `cpu.cfs_quota_us`.
double cgroup_quota_cores();

/// Threads worth using: the affinity count, lowered to the quota rounded up; at least 1.
int usable_cores() noexcept;

}  // namespace gristmill
