#pragma once

#include <cstdint>

#if defined(_MSC_VER) && defined(_M_X64)
#include <intrin.h>
#endif

/// The thread's floating-point mode: rounding, flush-to-zero and trap masks, without the sticky flags.
///
/// The library never changes the mode of a thread that calls it. Its own workers adopt the mode of the caller
/// whose tasks they run; else a caller that flushes denormals would get results that depend on which thread
/// ran which task.
namespace gristmill {

#if defined(__x86_64__) || defined(_M_X64)

inline constexpr std::uint64_t kFloatFlags = 0x3F;

inline std::uint64_t raw_float_mode() noexcept {
#if defined(_MSC_VER)
  return _mm_getcsr();
#else
  return __builtin_ia32_stmxcsr();
#endif
}

inline void set_raw_float_mode(std::uint64_t mode) noexcept {
#if defined(_MSC_VER)
  _mm_setcsr(static_cast<unsigned>(mode));
#else
  __builtin_ia32_ldmxcsr(static_cast<unsigned>(mode));
#endif
}

#elif defined(__aarch64__) && !defined(_MSC_VER)

inline constexpr std::uint64_t kFloatFlags = 0;  // FPCR holds no flags, they are in FPSR

inline std::uint64_t raw_float_mode() noexcept {
  std::uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}

inline void set_raw_float_mode(std::uint64_t mode) noexcept { __asm__ volatile("msr fpcr, %0" ::"r"(mode)); }

#else

inline constexpr std::uint64_t kFloatFlags = 0;
inline std::uint64_t raw_float_mode() noexcept { return 0; }
inline void set_raw_float_mode(std::uint64_t) noexcept {}

#endif

/// The calling thread's mode.
inline std::uint64_t float_mode() noexcept { return raw_float_mode() & ~kFloatFlags; }

/// Gives the calling thread that mode and keeps its sticky flags.
inline void adopt_float_mode(std::uint64_t mode) noexcept {
  const std::uint64_t own = raw_float_mode();
  if ((own & ~kFloatFlags) != mode) set_raw_float_mode(mode | (own & kFloatFlags));
}

}  // namespace gristmill
