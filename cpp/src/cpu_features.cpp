#include <cstdint>
#include <initializer_list>

#include "gristmill/cpu.h"
#include "x86_cpuid.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace gristmill {
namespace {

#if defined(__x86_64__) || defined(_M_X64)

std::uint64_t saved_register_state() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  std::uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (std::uint64_t{high} << 32) | low;
#endif
}

/// Linux lets those processes use tiles that ask. Other systems are not asked, and not tested.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool has_bits(std::uint32_t word, std::initializer_list<int> bits) {
  for (int bit : bits)
    if (((word >> bit) & 1) == 0) return false;
  return true;
}

CpuFeatures detect() {
  CpuFeatures features;
  const CpuidRegisters leaf0 = cpuid(0);
  if (leaf0.eax < 7) return features;
  features.intel =
      leaf0.ebx == 0x756E6547 && leaf0.edx == 0x49656E69 && leaf0.ecx == 0x6C65746E;  // GenuineIntel
  const CpuidRegisters leaf1 = cpuid(1), leaf7 = cpuid(7);
  constexpr int kFma = 12, kOsxsave = 27, kAvx = 28, kF16c = 29;
  if (!has_bits(leaf1.ecx, {kFma, kOsxsave, kAvx, kF16c})) return features;

  constexpr std::uint64_t kYmmState = 0x06, kZmmState = 0xE6;
  const std::uint64_t state = saved_register_state();
  constexpr int kBmi1 = 3, kAvx2 = 5, kBmi2 = 8;
  features.avx2 = (state & kYmmState) == kYmmState && has_bits(leaf7.ebx, {kBmi1, kAvx2, kBmi2});

  constexpr int kF = 16, kDq = 17, kBw = 30, kVl = 31, kVbmi = 1, kVnni = 11;
  features.avx512vnni = features.avx2 && (state & kZmmState) == kZmmState &&
                        has_bits(leaf7.ebx, {kF, kDq, kBw, kVl}) && has_bits(leaf7.ecx, {kVnni});
  features.avx512vbmi = features.avx512vnni && has_bits(leaf7.ecx, {kVbmi});

  constexpr std::uint64_t kTileState = 0x60000;
  constexpr int kAmxTile = 24, kAmxInt8 = 25;
  features.amx = features.avx512vnni && (state & kTileState) == kTileState &&
                 has_bits(leaf7.edx, {kAmxTile, kAmxInt8}) && may_use_tiles();
  return features;
}

#elif defined(__aarch64__) && defined(__linux__)

CpuFeatures detect() {
  constexpr unsigned long kAsimdBit = 1ul << 1, kDotprodBit = 1ul << 20, kI8mmBit = 1ul << 13;
  CpuFeatures features;
  features.neon = (getauxval(AT_HWCAP) & kAsimdBit) != 0;
  features.neon_dotprod = features.neon && (getauxval(AT_HWCAP) & kDotprodBit) != 0;
  features.neon_i8mm = features.neon_dotprod && (getauxval(AT_HWCAP2) & kI8mmBit) != 0;
  return features;
}

#elif defined(__aarch64__) && defined(__APPLE__)

bool sysctl_flag(const char* name) {
  int value = 0;
  std::size_t size = sizeof(value);
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

CpuFeatures detect() {
  CpuFeatures features;
  features.neon = true;
  features.neon_dotprod = sysctl_flag("hw.optional.arm.FEAT_DotProd");
  features.neon_i8mm = features.neon_dotprod && sysctl_flag("hw.optional.arm.FEAT_I8MM");
  return features;
}

#else

CpuFeatures detect() { return {}; }

#endif

}  // namespace

const CpuFeatures& cpu_features() noexcept {
  static const CpuFeatures features = detect();
  return features;
}

}  // namespace gristmill
