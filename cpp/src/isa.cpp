#include "gristmill/isa.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <string>

#include "gristmill/cpu.h"
#include "gristmill/error.h"
#include "install.h"

namespace gristmill {
namespace {

struct Level {
  Isa isa;
  std::string_view name;
  void (*install)(KernelTable&);  // null: not compiled
  bool CpuFeatures::*feature;     // null: every processor has it
};

#ifndef GRISTMILL_HAVE_AVX2
constexpr auto install_avx2 = nullptr;
#endif
#ifndef GRISTMILL_HAVE_AVX512VNNI
constexpr auto install_avx512vnni = nullptr;
constexpr auto install_vbmi_avx512vnni = nullptr;
constexpr auto install_intel_avx512vnni = nullptr;
#endif
#ifndef GRISTMILL_HAVE_AMX
constexpr auto install_amx = nullptr;
#endif
#ifndef GRISTMILL_HAVE_NEON
constexpr auto install_neon = nullptr;
#endif
#ifndef GRISTMILL_HAVE_NEON_DOTPROD
constexpr auto install_neon_dotprod = nullptr;
#endif
#ifndef GRISTMILL_HAVE_NEON_I8MM
constexpr auto install_neon_i8mm = nullptr;
#endif

// In the order of Isa. A level builds on every compiled level above its own line, which holds because no
// build compiles levels of two architectures.
constexpr std::array<Level, 7> kLevels{{
    {Isa::scalar, "scalar", install_scalar, nullptr},
    {Isa::avx2, "avx2", install_avx2, &CpuFeatures::avx2},
    {Isa::avx512vnni, "avx512vnni", install_avx512vnni, &CpuFeatures::avx512vnni},
    {Isa::amx, "amx", install_amx, &CpuFeatures::amx},
    {Isa::neon, "neon", install_neon, &CpuFeatures::neon},
    {Isa::neon_dotprod, "neon_dotprod", install_neon_dotprod, &CpuFeatures::neon_dotprod},
    {Isa::neon_i8mm, "neon_i8mm", install_neon_i8mm, &CpuFeatures::neon_i8mm},
}};

/// Kernels of a level that ask for more than it does, or suit some processors better.
struct Extension {
  Isa level;
  void (*install)(KernelTable&);
  bool CpuFeatures::*feature;
};

constexpr std::array<Extension, 2> kExtensions{
    {{Isa::avx512vnni, install_vbmi_avx512vnni, &CpuFeatures::avx512vbmi},
     {Isa::avx512vnni, install_intel_avx512vnni, &CpuFeatures::intel}}};

struct IsaList {
  std::array<Isa, kLevels.size()> isas{};
  std::size_t count = 0;
  void add(Isa isa) { isas[count++] = isa; }
  std::span<const Isa> view() const { return {isas.data(), count}; }
};

/// Everything decided at start: which levels run here, and their tables.
struct Dispatch {
  IsaList compiled, supported;
  std::array<KernelTable, kLevels.size()> tables{};
  std::atomic<Isa> active;

  Dispatch() {
    KernelTable table{};
    bool runs = true;
    for (const Level& level : kLevels) {
      if (level.install == nullptr) continue;
      compiled.add(level.isa);
      runs = runs && (level.feature == nullptr || cpu_features().*level.feature);
      if (!runs) continue;
      level.install(table);
      for (const Extension& extension : kExtensions)
        if (extension.level == level.isa && cpu_features().*extension.feature) extension.install(table);
      tables[static_cast<std::size_t>(level.isa)] = table;
      supported.add(level.isa);
    }
    active = supported.view().back();
  }
};

Dispatch& dispatch() {
  static Dispatch instance;
  return instance;
}

std::string join_names(std::span<const Isa> isas) {
  std::string names;
  for (Isa isa : isas) names.append(names.empty() ? "" : ", ").append(isa_name(isa));
  return names;
}

void require_supported(Isa isa) {
  const auto supported = supported_isas();
  if (std::ranges::find(supported, isa) != supported.end()) return;
  const auto compiled = compiled_isas();
  const bool built = std::ranges::find(compiled, isa) != compiled.end();
  throw Error(ErrorKind::isa, "isa",
              "'" + std::string(isa_name(isa)) +
                  (built ? "' is not supported by this processor" : "' is not compiled into this build") +
                  "; choose one of: " + join_names(supported));
}

}  // namespace

std::string_view isa_name(Isa isa) noexcept { return kLevels[static_cast<std::size_t>(isa)].name; }

Isa parse_isa(std::string_view name) {
  for (const Level& level : kLevels)
    if (level.name == name) return level.isa;
  throw Error(ErrorKind::isa, "isa",
              "unknown level '" + std::string(name) + "'; choose one of: " + join_names(supported_isas()));
}

std::span<const Isa> compiled_isas() noexcept { return dispatch().compiled.view(); }

std::span<const Isa> supported_isas() noexcept { return dispatch().supported.view(); }

Isa active_isa() noexcept { return dispatch().active.load(std::memory_order_acquire); }

void set_active_isa(Isa isa) {
  require_supported(isa);
  dispatch().active.store(isa, std::memory_order_release);
}

const KernelTable& kernel_table(Isa isa) {
  require_supported(isa);
  return dispatch().tables[static_cast<std::size_t>(isa)];
}

const KernelTable& active_kernels() noexcept {
  Dispatch& d = dispatch();
  return d.tables[static_cast<std::size_t>(d.active.load(std::memory_order_acquire))];
}

}  // namespace gristmill
