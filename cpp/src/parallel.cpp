#include "gristmill/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <string>
#include <thread>

#include "float_mode.h"
#include "futex.h"
#include "gristmill/cpu.h"
#include "gristmill/error.h"

#if defined(__unix__) || defined(__APPLE__)
#define GRISTMILL_POSIX_THREADS 1
#include <pthread.h>

#include <csignal>
#endif

namespace gristmill {
namespace {

using Clock = std::chrono::steady_clock;

/// How long a thread looks for work, or the caller for the end of a section, before it sleeps.
constexpr std::chrono::microseconds kSpin{50};

/// How long a refusal of the system to create a thread is believed.
constexpr std::chrono::seconds kRefusalHolds{1};

constexpr std::size_t kCacheLine = 64;

void pause() noexcept {
#if defined(__x86_64__) && !defined(_MSC_VER)
  __builtin_ia32_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
  __asm__ volatile("yield");
#else
  std::this_thread::yield();
#endif
}

/// Waits until `done()` for at most kSpin; says whether it came true.
template <class Done>
bool spin_until(Done done) noexcept {
  constexpr int kPausesPerLook = 16;  // 0.2 to 0.6 µs between looks at the clock
  const auto deadline = Clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (done()) return true;
      pause();
    }
  } while (Clock::now() < deadline);
  return done();
}

/// Keeps signals away from the threads created during its life: the program's handlers run on the program's
/// own threads. Faults stay with the thread that causes them.
class SignalsBlocked {
 public:
#if defined(GRISTMILL_POSIX_THREADS)
  SignalsBlocked() noexcept {
    sigset_t blocked;
    sigfillset(&blocked);
    for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) sigdelset(&blocked, fault);
    pthread_sigmask(SIG_SETMASK, &blocked, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
#endif
};

/// One parallel_for, on its caller's stack.
struct Section {
  TaskRef body;
  std::size_t tasks;
  std::uint64_t caller_mode;
  std::atomic<bool> failed{false};
  std::exception_ptr error{};
  alignas(kCacheLine) std::atomic<std::size_t> next{0};

  void run_tasks() noexcept {
    try {
      for (;;) {
        const std::size_t task = next.fetch_add(1, std::memory_order_relaxed);
        if (task >= tasks) return;
        body(task);
      }
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
      next.store(tasks, std::memory_order_relaxed);
    }
  }
};

/// The process's workers and the door through which they enter a section.
///
/// Everything that workers and the caller agree on is one word, the door:
///
///     bit 24          bits 12-23       bits 0-11
///     caller sleeps   free seats       workers inside
///
/// The caller opens a section by storing its number of seats. A worker enters by moving one from `free seats`
/// to `workers inside`, in one compare-exchange, so it never touches a section that has ended. Whoever finds
/// that no task is left takes the free seats away, and the section is over when nobody is inside: workers
/// that were asleep or late cost the caller nothing.
///
/// The object is constant-initialized and never destroyed, so there is no order of construction or
/// destruction to get wrong: at process exit workers are asleep or looking at it.
class Pool {
 public:
  bool run(std::size_t tasks, int threads, TaskRef body);
  int workers() const noexcept { return workers_.load(std::memory_order_relaxed); }
  void forget() noexcept;

 private:
  static constexpr std::uint32_t kInside = 1, kInsideMask = 0xFFF;
  static constexpr std::uint32_t kSeat = 1 << 12, kSeatMask = 0xFFF << 12;
  static constexpr std::uint32_t kCallerSleeps = 1 << 24;
  static_assert(kMaxThreads <= 0xFFF);

  void grow(int wanted) noexcept;
  void open(Section& section, int seats) noexcept;
  void close() noexcept;
  void work() noexcept;
  bool enter() noexcept;
  void leave() noexcept;
  void sleep() noexcept;
  bool may_spin() const noexcept { return may_spin_.load(std::memory_order_relaxed); }
  bool has_seats() const noexcept { return (door_.load(std::memory_order_relaxed) & kSeatMask) != 0; }
  bool is_empty() const noexcept { return (door_.load(std::memory_order_acquire) & kInsideMask) == 0; }

  alignas(kCacheLine) std::atomic<std::uint32_t> door_{0};
  alignas(kCacheLine) std::atomic<std::uint32_t> ended_{0};  // counts sections that woke their caller
  Section* section_ = nullptr;
  std::atomic<bool> busy_{false};  // a caller owns the pool; guards what follows
  std::atomic<int> workers_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> may_spin_{false};  // the latest section had a core for each of its threads
  int cores_ = 0;
  Clock::time_point refused_until_{};
};

constinit Pool pool;

#if defined(GRISTMILL_POSIX_THREADS)
/// Whether a child of fork() will forget our workers; without that there can be none.
const bool fork_is_handled = pthread_atfork(nullptr, nullptr, [] { pool.forget(); }) == 0;
#else
constexpr bool fork_is_handled = true;
#endif

bool Pool::run(std::size_t tasks, int threads, TaskRef body) {
  if (busy_.load(std::memory_order_relaxed) || busy_.exchange(true, std::memory_order_acquire)) return false;
  grow(threads - 1);
  const int seats = std::min(threads - 1, workers());
  if (seats == 0) {
    busy_.store(false, std::memory_order_release);
    return false;
  }
  may_spin_.store(seats < cores_, std::memory_order_relaxed);
  Section section{body, tasks, float_mode()};
  open(section, seats);
  section.run_tasks();
  close();
  busy_.store(false, std::memory_order_release);
  if (section.error) std::rethrow_exception(std::move(section.error));
  return true;
}

void Pool::grow(int wanted) noexcept {
  if (workers() >= wanted || !fork_is_handled || Clock::now() < refused_until_) return;
  const SignalsBlocked guard;
  try {
    if (cores_ == 0) cores_ = usable_cores();
    for (; workers() < wanted; workers_.fetch_add(1)) std::thread([this] { work(); }).detach();
  } catch (const std::exception&) {
    refused_until_ = Clock::now() + kRefusalHolds;
  }
}

void Pool::open(Section& section, int seats) noexcept {
  section_ = &section;
  door_.store(static_cast<std::uint32_t>(seats) * kSeat, std::memory_order_seq_cst);
  const int asleep = sleepers_.load(std::memory_order_seq_cst);
  const int awake = workers() - asleep;
  if (asleep > 0 && seats > awake) futex_wake(door_, seats - awake);
}

void Pool::close() noexcept {
  door_.fetch_and(~kSeatMask, std::memory_order_acq_rel);
  if (is_empty() || (may_spin() && spin_until([this] { return is_empty(); }))) return;
  door_.fetch_or(kCallerSleeps, std::memory_order_acq_rel);
  for (;;) {
    const std::uint32_t seen = ended_.load(std::memory_order_acquire);
    if (is_empty()) return;
    futex_wait(ended_, seen);
  }
}

void Pool::work() noexcept {
  for (;;) {
    if (enter()) {
      adopt_float_mode(section_->caller_mode);
      section_->run_tasks();
      door_.fetch_and(~kSeatMask, std::memory_order_relaxed);
      leave();
    } else if (!may_spin() || !spin_until([this] { return has_seats(); })) {
      sleep();
    }
  }
}

bool Pool::enter() noexcept {
  std::uint32_t door = door_.load(std::memory_order_relaxed);
  while ((door & kSeatMask) != 0)
    if (door_.compare_exchange_weak(door, door - kSeat + kInside, std::memory_order_acquire)) return true;
  return false;
}

void Pool::leave() noexcept {
  const std::uint32_t door = door_.fetch_sub(kInside, std::memory_order_acq_rel);
  if ((door & kInsideMask) != kInside || (door & kCallerSleeps) == 0) return;
  ended_.fetch_add(1, std::memory_order_release);
  futex_wake(ended_, 1);
}

void Pool::sleep() noexcept {
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  const std::uint32_t door = door_.load(std::memory_order_seq_cst);
  if ((door & kSeatMask) == 0) futex_wait(door_, door);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

/// In the child of fork() no worker exists any more, nor any thread that owned the pool.
void Pool::forget() noexcept {
  door_ = 0;
  workers_ = 0;
  sleepers_ = 0;
  cores_ = 0;
  refused_until_ = {};
  busy_ = false;
}

constinit std::atomic<int> default_count{0};  // 0: nobody chose or asked yet

}  // namespace

void parallel_for(std::size_t tasks, int threads, TaskRef body) {
  if (threads < 0)
    throw Error(ErrorKind::argument, "threads", "expected 0 or more, got " + std::to_string(threads));
  const auto most =
      static_cast<std::size_t>(std::min(threads == 0 ? default_threads() : threads, kMaxThreads));
  if (tasks > 1 && most > 1 && pool.run(tasks, static_cast<int>(std::min(tasks, most)), body)) return;
  for (std::size_t task = 0; task < tasks; ++task) body(task);
}

int default_threads() noexcept {
  int count = default_count.load(std::memory_order_relaxed);
  if (count != 0) return count;
  const int usable = std::min(usable_cores(), kMaxThreads);
  return default_count.compare_exchange_strong(count, usable, std::memory_order_relaxed) ? usable : count;
}

void set_default_threads(int threads) {
  if (threads < 1 || threads > kMaxThreads)
    throw Error(ErrorKind::argument, "threads",
                "expected 1 to " + std::to_string(kMaxThreads) + ", got " + std::to_string(threads));
  default_count.store(threads, std::memory_order_relaxed);
}

int pool_workers() noexcept { return pool.workers(); }

}  // namespace gristmill
