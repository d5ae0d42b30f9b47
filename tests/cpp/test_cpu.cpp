#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "cpu_topology.h"
#include "gristmill/cpu.h"
#include "harness.h"

using namespace gristmill;
namespace fs = std::filesystem;

namespace {

/// A folder that stands for `/` of a made-up machine.
class MachineFiles {
 public:
  MachineFiles() {
    std::string pattern = (fs::temp_directory_path() / "gristmill-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) harness::fail(__FILE__, __LINE__, "no temporary folder");
    root_ = pattern;
  }
  ~MachineFiles() { fs::remove_all(root_); }
  MachineFiles(const MachineFiles&) = delete;
  MachineFiles& operator=(const MachineFiles&) = delete;

  MachineFiles& write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
    return *this;
  }
  MachineFiles& cache(int index, const std::string& level, const std::string& type, const std::string& size,
                      const std::string& shared) {
    const std::string folder = "sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    return write(folder + "level", level + "\n")
        .write(folder + "type", type + "\n")
        .write(folder + "size", size + "\n")
        .write(folder + "shared_cpu_list", shared + "\n");
  }
  const fs::path& root() const { return root_; }

 private:
  fs::path root_;
};

constexpr const char* kMountV2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
constexpr const char* kMountV1 =
    "22 1 0:20 / /proc rw - proc proc rw\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:3 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

double quota(const MachineFiles& machine) { return topology::read_cgroup_quota(machine.root()); }

}  // namespace

TEST(cpu_list_is_counted) {
  for (auto [list, count] : {std::pair{"0", 1}, {"0-3", 4}, {"0-3,8,10-11", 7}, {"0-1\n", 2}, {"5-5", 1}})
    CHECK_EQ(topology::count_cpu_list(list), count);
  for (const char* bad : {"", "a", "3-1", "0-", "-1", "1-2-3", "0,,1", "0-99999999999"})
    CHECK_EQ(topology::count_cpu_list(bad), 0);
}

TEST(cpu_cache_size_is_parsed) {
  for (auto [text, bytes] : {std::pair{"32K", 32u << 10}, {"2M", 2u << 20}, {"1G", 1u << 30}, {"512", 512u}})
    CHECK_EQ(topology::parse_cache_size(text), std::size_t{bytes});
  for (const char* bad : {"", "K", "-1K", "32KB", "x", "99999999999999999999", "18446744073709551615G"})
    CHECK_EQ(topology::parse_cache_size(bad), std::size_t{0});
}

TEST(cpu_caches_from_files) {
  MachineFiles machine;
  machine.cache(0, "1", "Data", "48K", "0,32")
      .cache(1, "1", "Instruction", "32K", "0,32")
      .cache(2, "3", "Unified", "36M", "0-63")
      .cache(3, "2", "Unified", "2048K", "0")
      .cache(4, "4", "Unified", "broken", "0-63");
  const auto caches = topology::read_sysfs_caches(machine.root());
  CHECK_EQ(caches.size(), std::size_t{3});
  CHECK_EQ(caches[0].level, 1);
  CHECK_EQ(caches[0].bytes, std::size_t{48} << 10);
  CHECK_EQ(caches[0].shared_by, 2);
  CHECK_EQ(caches[1].level, 2);
  CHECK_EQ(caches[1].bytes, std::size_t{2} << 20);
  CHECK_EQ(caches[1].shared_by, 1);
  CHECK_EQ(caches[2].level, 3);
  CHECK_EQ(caches[2].shared_by, 64);
}

TEST(cpu_caches_absent) { CHECK(topology::read_sysfs_caches(MachineFiles().root()).empty()); }

TEST(cpu_model_from_x86_file) {
  MachineFiles machine;
  machine.write("proc/cpuinfo",
                "processor\t: 0\nmodel\t\t: 17\nmodel name\t: Fast CPU @ 3.00GHz\n\nmodel name\t: B\n");
  CHECK(topology::read_cpuinfo_model(machine.root()) == "Fast CPU @ 3.00GHz");
}

TEST(cpu_model_from_arm_file) {
  const auto model = [](const std::string& implementer, const std::string& part) {
    MachineFiles machine;
    machine.write("proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: " + implementer +
                                      "\nCPU variant\t: 0x3\nCPU part\t: " + part + "\n");
    return topology::read_cpuinfo_model(machine.root());
  };
  CHECK(model("0x41", "0xd0c") == "Neoverse-N1");
  CHECK(model("0x41", "0xd03") == "Cortex-A53");
  CHECK(model("0x99", "0x123") == "ARM implementer 0x99 part 0x123");
  CHECK(model("", "").empty());
}

TEST(cpu_model_absent) { CHECK(topology::read_cpuinfo_model(MachineFiles().root()).empty()); }

TEST(cpu_quota_v2) {
  MachineFiles machine;
  machine.write("proc/self/mountinfo", kMountV2).write("proc/self/cgroup", "0::/a/b\n");
  CHECK_EQ(quota(machine), 0.0);
  machine.write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  CHECK_EQ(quota(machine), 0.0);
  machine.write("sys/fs/cgroup/a/cpu.max", "350000 100000\n");
  CHECK_EQ(quota(machine), 3.5);
  machine.write("sys/fs/cgroup/a/b/cpu.max", "150000 100000\n");
  CHECK_EQ(quota(machine), 1.5);
  machine.write("sys/fs/cgroup/cpu.max", "50000 100000\n");
  CHECK_EQ(quota(machine), 0.5);
}

TEST(cpu_quota_v2_of_another_group_does_not_count) {
  MachineFiles machine;
  machine.write("proc/self/mountinfo", kMountV2).write("proc/self/cgroup", "0::/a/b\n");
  machine.write("sys/fs/cgroup/a/c/cpu.max", "100000 100000\n");
  machine.write("sys/fs/cgroup/a/b/c/cpu.max", "100000 100000\n");
  CHECK_EQ(quota(machine), 0.0);
}

TEST(cpu_quota_v1) {
  MachineFiles machine;
  machine.write("proc/self/mountinfo", kMountV1)
      .write("proc/self/cgroup", "9:memory:/m\n4:cpu,cpuacct:/docker/x\n0::/other\n");
  const std::string folder = "sys/fs/cgroup/cpu,cpuacct/docker/";
  machine.write(folder + "x/cpu.cfs_quota_us", "-1\n").write(folder + "x/cpu.cfs_period_us", "100000\n");
  CHECK_EQ(quota(machine), 0.0);
  machine.write(folder + "cpu.cfs_quota_us", "250000\n").write(folder + "cpu.cfs_period_us", "100000\n");
  CHECK_EQ(quota(machine), 2.5);
  machine.write(folder + "x/cpu.cfs_quota_us", "20000\n").write(folder + "x/cpu.cfs_period_us", "10000\n");
  CHECK_EQ(quota(machine), 2.0);
  machine.write(folder + "x/cpu.cfs_period_us", "0\n");
  CHECK_EQ(quota(machine), 2.5);
}

TEST(cpu_quota_v1_and_v2_the_tighter_counts) {
  MachineFiles machine;
  machine.write("proc/self/mountinfo", std::string(kMountV1) + "40 31 0:40 / /unified rw - cgroup2 none rw\n")
      .write("proc/self/cgroup", "4:cpu,cpuacct:/v1\n0::/v2\n");
  machine.write("unified/v2/cpu.max", "300000 100000\n");
  CHECK_EQ(quota(machine), 3.0);
  machine.write("sys/fs/cgroup/cpu,cpuacct/v1/cpu.cfs_quota_us", "200000\n")
      .write("sys/fs/cgroup/cpu,cpuacct/v1/cpu.cfs_period_us", "100000\n");
  CHECK_EQ(quota(machine), 2.0);
}

TEST(cpu_quota_where_a_subtree_is_mounted) {
  MachineFiles machine;  // as in a container that sees the host's group names
  machine.write("proc/self/mountinfo", "32 31 0:29 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup rw\n")
      .write("proc/self/cgroup", "0::/docker/x/task\n");
  machine.write("sys/fs/cgroup/task/cpu.max", "100000 100000\n");
  CHECK_EQ(quota(machine), 1.0);
  machine.write("proc/self/cgroup", "0::/docker/xyz/task\n");  // a sibling, not a child
  CHECK_EQ(quota(machine), 0.0);
  machine.write("sys/fs/cgroup/cpu.max", "200000 100000\n");
  CHECK_EQ(quota(machine), 2.0);
}

TEST(cpu_quota_group_outside_the_namespace) {
  MachineFiles machine;
  machine.write("proc/self/mountinfo", kMountV2).write("proc/self/cgroup", "0::/../../elsewhere\n");
  machine.write("elsewhere/cpu.max", "100000 100000\n").write("sys/fs/cgroup/cpu.max", "400000 100000\n");
  CHECK_EQ(quota(machine), 4.0);
}

TEST(cpu_quota_mount_with_blank) {
  MachineFiles machine;
  machine.write("proc/self/mountinfo", "31 23 0:28 / /my\\040groups rw - cgroup2 cgroup2 rw\n")
      .write("proc/self/cgroup", "0::/\n")
      .write("my groups/cpu.max", "100000 200000\n");
  CHECK_EQ(quota(machine), 0.5);
}

TEST(cpu_quota_malformed_files_tell_nothing) {
  MachineFiles machine;
  CHECK_EQ(quota(machine), 0.0);
  machine.write("proc/self/mountinfo", "nonsense\n - \n1 2 3 - cgroup2\n" + std::string(kMountV2))
      .write("proc/self/cgroup", "\n:\nnonsense\n0::/\n");
  for (const char* text : {"", "100000", "-5 100000", "100000 0", "1e5 100000", "99999999999999999999 1"}) {
    machine.write("sys/fs/cgroup/cpu.max", text);
    CHECK_EQ(quota(machine), 0.0);
  }
}

TEST(cpu_usable_cores_rule) {
  CHECK_EQ(topology::combine_cores(8, 0), 8);
  CHECK_EQ(topology::combine_cores(8, 16), 8);
  CHECK_EQ(topology::combine_cores(8, 1e300), 8);
  CHECK_EQ(topology::combine_cores(8, 2), 2);
  CHECK_EQ(topology::combine_cores(8, 2.01), 3);
  CHECK_EQ(topology::combine_cores(8, 0.1), 1);
  CHECK_EQ(topology::combine_cores(0, 0), 1);
}

TEST(cpu_of_this_machine_is_plausible) {
  CHECK(!cpu_model().empty());
  CHECK(affinity_cores() >= 1);
  CHECK(usable_cores() >= 1);
  CHECK(usable_cores() <= affinity_cores());
  const auto caches = cpu_caches();
  CHECK(std::ranges::is_sorted(caches, {}, &CacheInfo::level));
  for (const CacheInfo& cache : caches) {
    CHECK(cache.level >= 1 && cache.level <= 4);
    CHECK(cache.bytes >= 1024);
    CHECK(cache.shared_by >= 1);
  }
}
