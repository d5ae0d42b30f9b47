#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "gristmill/cpu.h"

/// The readers behind cpu.h. Each takes the folder that stands for `/`, so that tests can lay out the files
/// of any machine; whatever is missing or malformed there counts as not told.
namespace gristmill::topology {

/// Number of processors in a kernel list such as "0-3,8,10-11"; 0 if it is not one.
int count_cpu_list(std::string_view list);

/// Bytes of a sysfs cache size such as "512K" or "32M"; 0 if it is not one.
std::size_t parse_cache_size(std::string_view size);

/// Data and unified caches of cpu0 from `sys/devices/system/cpu/cpu0/cache`, smallest level first.
std::vector<CacheInfo> read_sysfs_caches(const std::filesystem::path& root);

/// The model as `proc/cpuinfo` names it: "model name", or the core's name from ARM implementer and part
/// numbers; empty if neither is there.
std::string read_cpuinfo_model(const std::filesystem::path& root);

/// The tightest CPU quota, in cores, of this process's control groups and of all groups above them, of cgroup
/// v1 and v2; 0 if there is none.
double read_cgroup_quota(const std::filesystem::path& root);

/// The rule of usable_cores().
int combine_cores(int affinity, double quota);

}  // namespace gristmill::topology
