#include "cpu_topology.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <exception>
#include <thread>

#include "gristmill/cpu.h"
#include "x86_cpuid.h"

#if defined(__linux__)
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#define NOMINMAX
#include <windows.h>
#endif

namespace gristmill {
namespace {

#if defined(__x86_64__) || defined(_M_X64)

constexpr std::uint32_t kExtended = 0x80000000;

std::string cpuid_model() {
  constexpr std::uint32_t kBrandFirst = kExtended + 2, kBrandLast = kExtended + 4;
  if (cpuid(kExtended).eax < kBrandLast) return {};
  char brand[3 * sizeof(CpuidRegisters) + 1] = {};
  for (std::uint32_t leaf = kBrandFirst; leaf <= kBrandLast; ++leaf) {
    const CpuidRegisters part = cpuid(leaf);
    std::memcpy(brand + (leaf - kBrandFirst) * sizeof part, &part, sizeof part);
  }
  const std::string_view text(brand);
  const std::size_t first = text.find_first_not_of(' '), last = text.find_last_not_of(' ');
  return first == text.npos ? std::string() : std::string(text.substr(first, last - first + 1));
}

/// The deterministic cache parameters: leaf 4, which AMD numbers 0x8000001D.
std::vector<CacheInfo> cpuid_caches() {
  constexpr std::uint32_t kIntelLeaf = 4, kAmdLeaf = kExtended + 0x1D, kNone = 0, kInstruction = 2;
  const bool amd = cpuid(kExtended).eax >= kAmdLeaf && cpuid(kAmdLeaf).eax != 0;
  if (!amd && cpuid(0).eax < kIntelLeaf) return {};
  std::vector<CacheInfo> caches;
  for (std::uint32_t index = 0; index < 16; ++index) {
    const CpuidRegisters r = cpuid(amd ? kAmdLeaf : kIntelLeaf, index);
    const std::uint32_t type = r.eax & 0x1F;
    if (type == kNone) break;
    if (type == kInstruction) continue;
    const std::size_t line = (r.ebx & 0xFFF) + 1, partitions = (r.ebx >> 12 & 0x3FF) + 1;
    const std::size_t ways = (r.ebx >> 22) + 1, sets = std::size_t{r.ecx} + 1;
    caches.push_back({static_cast<int>(r.eax >> 5 & 7), line * partitions * ways * sets,
                      static_cast<int>(r.eax >> 14 & 0xFFF) + 1});
  }
  std::ranges::stable_sort(caches, {}, &CacheInfo::level);
  return caches;
}

#else

std::string cpuid_model() { return {}; }
std::vector<CacheInfo> cpuid_caches() { return {}; }

#endif

#if defined(__APPLE__)

std::uint64_t sysctl_number(const char* name) {
  std::uint64_t value = 0;
  std::size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 ? value : 0;
}

std::string system_model() {
  char brand[256] = {};
  std::size_t size = sizeof brand - 1;
  return sysctlbyname("machdep.cpu.brand_string", brand, &size, nullptr, 0) == 0 ? brand : "";
}

/// Of the fast cores, where there are several kinds.
std::vector<CacheInfo> system_caches() {
  struct Name {
    int level;
    const char *fast, *any, *shared_by;
  };
  constexpr Name kNames[] = {{1, "hw.perflevel0.l1dcachesize", "hw.l1dcachesize", nullptr},
                             {2, "hw.perflevel0.l2cachesize", "hw.l2cachesize", "hw.perflevel0.cpusperl2"},
                             {3, "hw.perflevel0.l3cachesize", "hw.l3cachesize", "hw.perflevel0.cpusperl3"}};
  std::vector<CacheInfo> caches;
  for (const Name& name : kNames) {
    std::uint64_t bytes = sysctl_number(name.fast);
    if (bytes == 0) bytes = sysctl_number(name.any);
    if (bytes == 0) continue;
    const std::uint64_t shared_by = name.shared_by == nullptr ? 1 : sysctl_number(name.shared_by);
    caches.push_back({name.level, bytes, std::max(1, static_cast<int>(shared_by))});
  }
  return caches;
}

#elif defined(__linux__)

std::string system_model() { return topology::read_cpuinfo_model("/"); }
std::vector<CacheInfo> system_caches() { return topology::read_sysfs_caches("/"); }

#else

std::string system_model() { return {}; }
std::vector<CacheInfo> system_caches() { return {}; }

#endif

int hardware_threads() noexcept { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

}  // namespace

std::string cpu_model() {
  if (std::string model = cpuid_model(); !model.empty()) return model;
  if (std::string model = system_model(); !model.empty()) return model;
  return "unknown";
}

std::vector<CacheInfo> cpu_caches() {
  if (auto caches = system_caches(); !caches.empty()) return caches;
  return cpuid_caches();
}

int affinity_cores() {
#if defined(__linux__)
  constexpr int kMostProcessors = 1 << 20;
  for (int processors = CPU_SETSIZE; processors <= kMostProcessors; processors *= 2) {
    cpu_set_t* set = CPU_ALLOC(processors);
    if (set == nullptr) break;
    const std::size_t size = CPU_ALLOC_SIZE(processors);
    const bool known = sched_getaffinity(0, size, set) == 0;
    const int count = known ? CPU_COUNT_S(size, set) : 0;
    CPU_FREE(set);
    if (known) return std::max(1, count);
  }
#elif defined(_WIN32)
  DWORD_PTR process = 0, system = 0;
  if (GetProcessAffinityMask(GetCurrentProcess(), &process, &system) != 0 && process != 0)
    return std::popcount(static_cast<std::uint64_t>(process));
#endif
  return hardware_threads();
}

double cgroup_quota_cores() {
#if defined(__linux__)
  return topology::read_cgroup_quota("/");
#else
  return 0;
#endif
}

int usable_cores() noexcept {
  try {
    return topology::combine_cores(affinity_cores(), cgroup_quota_cores());
  } catch (const std::exception&) {  // out of memory: the answer that always holds
    return 1;
  }
}

int topology::combine_cores(int affinity, double quota) {
  const int cores = std::max(1, affinity);
  if (!(quota > 0)) return cores;
  return quota >= cores ? cores : static_cast<int>(std::ceil(quota));
}

}  // namespace gristmill
