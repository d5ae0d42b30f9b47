#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>

/// Running a loop on several cores.
///
/// A *parallel section* splits `tasks` independent tasks over the caller and the pool's workers; the caller
/// takes part and returns when all tasks are done. Workers spin briefly after a section, because the next
/// layer's section usually follows within microseconds, and then sleep until a section wakes them, all with
/// one call. Which thread runs which task is unspecified, so results must not depend on it: every gristmill
/// kernel writes disjoint outputs whose values do not depend on the partition.
///
///     caller    publish ── run tasks ───────────── wait for stragglers ── return
///     worker    spin or sleep ── run tasks ── report done ── spin ── sleep
///
/// One pool serves the process. A section that finds it busy with another caller's section, or that is
/// started from inside a section, runs on its caller alone: callers never wait for each other. After fork()
/// the child has no workers; it forgets the parent's and starts its own on first use. A worker that the
/// system refuses to create is done without, and asked for again a second later. Workers take no signals and
/// adopt the caller's floating-point mode, so that results do not depend on who runs a task either. Threads
/// spin only while every thread of the section has a core. A task must not fork, and may count on no more
/// stack than the system's default for threads, which is 128 KiB with musl.
namespace gristmill {

/// A borrowed callable `void(std::size_t task)`: no allocation, valid while the callable lives.
class TaskRef {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, TaskRef>) TaskRef(F&& body)
  noexcept  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(body)))),
        call_([](void* object, std::size_t task) {
          (*static_cast<std::remove_reference_t<F>*>(object))(task);
        }) {}
  void operator()(std::size_t task) const { call_(object_, task); }

 private:
  void* object_;
  void (*call_)(void*, std::size_t);
};

/// The most threads a section may use, whatever is asked for.
inline constexpr int kMaxThreads = 256;

/// Runs `body(0) ... body(tasks - 1)`, each exactly once, on at most `threads` threads (0:
/// default_threads()). An exception that a task throws reaches the caller after all started tasks have ended;
/// tasks not yet started are dropped.
void parallel_for(std::size_t tasks, int threads, TaskRef body);

/// Threads that a section uses when its caller does not say: usable_cores() until set_default_threads changes
/// it.
int default_threads() noexcept;

/// Sets default_threads(); throws Error(argument) outside 1..kMaxThreads.
void set_default_threads(int threads);

/// Workers alive in this process now, the caller not counted.
int pool_workers() noexcept;

}  // namespace gristmill
