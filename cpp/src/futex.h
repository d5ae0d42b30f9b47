#pragma once

#include <atomic>
#include <climits>
#include <cstdint>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/// Sleeping on a 32-bit word, and waking a chosen number of sleepers with one call. Both may return early or
/// wake too many; callers look at the word again.
namespace gristmill {

#if defined(__linux__) && defined(SYS_futex)

/// Sleeps while `word` holds `expected`.
inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected) noexcept {
  static_assert(sizeof(word) == sizeof(std::uint32_t) && std::atomic<std::uint32_t>::is_always_lock_free);
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

/// Wakes up to `count` sleepers.
inline void futex_wake(std::atomic<std::uint32_t>& word, int count) noexcept {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

#else

inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected) noexcept {
  word.wait(expected);
}

inline void futex_wake(std::atomic<std::uint32_t>& word, int count) noexcept {
  if (count == 1)
    word.notify_one();
  else
    word.notify_all();
}

#endif

}  // namespace gristmill
