#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>

#include "cpu_topology.h"

namespace gristmill::topology {
namespace {

namespace fs = std::filesystem;

/// The whole number that `text` is, if it is one.
template <class Number>
std::optional<Number> parse_number(std::string_view text, int base = 10) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == text.npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

/// The first line without its surrounding blanks; empty if the file cannot be read.
std::string read_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return std::string(trim(line));
}

struct ArmCore {
  unsigned implementer, part;
  const char* name;
};

constexpr std::array<ArmCore, 17> kArmCores{{{0x41, 0xD03, "Cortex-A53"},
                                             {0x41, 0xD05, "Cortex-A55"},
                                             {0x41, 0xD07, "Cortex-A57"},
                                             {0x41, 0xD08, "Cortex-A72"},
                                             {0x41, 0xD0B, "Cortex-A76"},
                                             {0x41, 0xD0C, "Neoverse-N1"},
                                             {0x41, 0xD0D, "Cortex-A77"},
                                             {0x41, 0xD40, "Neoverse-V1"},
                                             {0x41, 0xD41, "Cortex-A78"},
                                             {0x41, 0xD44, "Cortex-X1"},
                                             {0x41, 0xD49, "Neoverse-N2"},
                                             {0x41, 0xD4A, "Neoverse-E1"},
                                             {0x41, 0xD4F, "Neoverse-V2"},
                                             {0x41, 0xD84, "Neoverse-V3"},
                                             {0x41, 0xD8E, "Neoverse-N3"},
                                             {0xC0, 0xAC3, "Ampere-1"},
                                             {0xC0, 0xAC4, "Ampere-1A"}}};

std::string arm_core_name(std::string_view implementer, std::string_view part) {
  if (!implementer.starts_with("0x") || !part.starts_with("0x")) return {};
  const auto who = parse_number<unsigned>(implementer.substr(2), 16);
  const auto what = parse_number<unsigned>(part.substr(2), 16);
  for (const ArmCore& core : kArmCores)
    if (who == core.implementer && what == core.part) return core.name;
  return "ARM implementer " + std::string(implementer) + " part " + std::string(part);
}

/// A mounted control-group hierarchy: the folder `mounted` shows the group `group` and those below it.
struct Hierarchy {
  bool v2;
  std::string group, mounted;
};

/// mountinfo writes blanks and backslashes as three octal digits.
std::string decode_octal(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto code = text[i] == '\\' ? parse_number<unsigned char>(text.substr(i + 1, 3), 8) : std::nullopt;
    plain += code ? static_cast<char>(*code) : text[i];
    if (code) i += 3;
  }
  return plain;
}

/// The mounts that can hold a CPU quota. A line of mountinfo reads
///     id parent major:minor group mounted options [tags ...] - type source superoptions
std::vector<Hierarchy> read_hierarchies(const fs::path& root) {
  std::vector<Hierarchy> found;
  std::ifstream file(root / "proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == line.npos) continue;
    const auto left = split(std::string_view(line).substr(0, dash), ' ');
    const auto right = split(std::string_view(line).substr(dash + 3), ' ');
    if (left.size() < 6 || right.size() < 3) continue;
    const bool v2 = right[0] == "cgroup2";
    const auto options = split(right[2], ',');
    if (!v2 && (right[0] != "cgroup" || std::ranges::find(options, "cpu") == options.end())) continue;
    found.push_back({v2, decode_octal(left[3]), decode_octal(left[4])});
  }
  return found;
}

/// This process's group in the v2 hierarchy or in the v1 hierarchy with the cpu controller, as a line
/// "id:controllers:group" of proc/self/cgroup tells it.
std::optional<std::string> read_group(const fs::path& root, bool v2) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string_view names = std::string_view(line).substr(first + 1, second - first - 1);
    const auto controllers = split(names, ',');
    const bool is_cpu = std::ranges::find(controllers, "cpu") != controllers.end();
    if (v2 ? names.empty() : is_cpu) return line.substr(second + 1);
  }
  return std::nullopt;
}

/// `group` relative to the group that is mounted; empty if it lies outside, as seen from some containers.
std::string below(const std::string& group, const std::string& mounted_group) {
  const std::string prefix = mounted_group == "/" ? "" : mounted_group;
  if (!group.starts_with(prefix) || group.find("/..") != group.npos) return {};
  const std::string rest = group.substr(prefix.size());
  return rest.starts_with('/') ? rest.substr(1) : std::string();
}

double read_quota(const fs::path& folder, bool v2) {
  std::string quota, period;
  if (v2) {
    std::istringstream words(read_line(folder / "cpu.max"));
    words >> quota >> period;
  } else {
    quota = read_line(folder / "cpu.cfs_quota_us");
    period = read_line(folder / "cpu.cfs_period_us");
  }
  const auto allowed = parse_number<long long>(quota), per = parse_number<long long>(period);
  if (!allowed || !per || *allowed <= 0 || *per <= 0) return 0;  // "max" and -1 mean no quota
  return static_cast<double>(*allowed) / static_cast<double>(*per);
}

}  // namespace

int count_cpu_list(std::string_view list) {
  int count = 0;
  for (std::string_view range : split(trim(list), ',')) {
    const auto ends = split(range, '-');
    const auto first = parse_number<int>(ends.front()), last = parse_number<int>(ends.back());
    if (ends.size() > 2 || !first || !last || *first < 0 || *last < *first || *last >= 1 << 20) return 0;
    count += *last - *first + 1;
  }
  return count;
}

std::size_t parse_cache_size(std::string_view size) {
  constexpr std::string_view kUnits = "KMG";
  const std::size_t unit = size.empty() ? kUnits.npos : kUnits.find(size.back());
  const std::size_t shift = unit == kUnits.npos ? 0 : 10 * (unit + 1);
  const auto count = parse_number<std::size_t>(unit == kUnits.npos ? size : size.substr(0, size.size() - 1));
  return count && *count <= (SIZE_MAX >> shift) ? *count << shift : 0;
}

std::vector<CacheInfo> read_sysfs_caches(const fs::path& root) {
  std::vector<CacheInfo> caches;
  for (int index = 0;; ++index) {
    const fs::path folder = root / "sys/devices/system/cpu/cpu0/cache" / ("index" + std::to_string(index));
    const std::string level = read_line(folder / "level"), type = read_line(folder / "type");
    if (level.empty()) break;
    const auto number = parse_number<int>(level);
    const std::size_t bytes = parse_cache_size(read_line(folder / "size"));
    if (!number || bytes == 0 || (type != "Data" && type != "Unified")) continue;
    caches.push_back({*number, bytes, std::max(1, count_cpu_list(read_line(folder / "shared_cpu_list")))});
  }
  std::ranges::stable_sort(caches, {}, &CacheInfo::level);
  return caches;
}

std::string read_cpuinfo_model(const fs::path& root) {
  std::ifstream file(root / "proc/cpuinfo");
  std::string implementer, part;
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (colon == line.npos) continue;
    const std::string_view key = trim(std::string_view(line).substr(0, colon));
    const std::string_view value = trim(std::string_view(line).substr(colon + 1));
    if (key == "model name" && !value.empty()) return std::string(value);
    if (key == "CPU implementer" && implementer.empty()) implementer = value;
    if (key == "CPU part" && part.empty()) part = value;
  }
  return arm_core_name(implementer, part);
}

double read_cgroup_quota(const fs::path& root) {
  double tightest = 0;
  for (const Hierarchy& hierarchy : read_hierarchies(root)) {
    const auto group = read_group(root, hierarchy.v2);
    if (!group) continue;
    const fs::path top = root / fs::path(hierarchy.mounted).relative_path();
    fs::path folder = top;
    const auto consider = [&] {
      const double quota = read_quota(folder, hierarchy.v2);
      if (quota > 0 && (tightest == 0 || quota < tightest)) tightest = quota;
    };
    consider();
    for (const fs::path& part : fs::path(below(*group, hierarchy.group))) {
      folder /= part;
      consider();
    }
  }
  return tightest;
}

}  // namespace gristmill::topology
