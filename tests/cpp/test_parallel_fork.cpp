#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>
#include <vector>

#include "gristmill/parallel.h"
#include "harness.h"

using namespace gristmill;

// The thread sanitizer refuses to start threads in the child of a threaded process.
#if defined(__SANITIZE_THREAD__)
#define GRISTMILL_CHILD_THREADS 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GRISTMILL_CHILD_THREADS 0
#endif
#endif
#ifndef GRISTMILL_CHILD_THREADS
#define GRISTMILL_CHILD_THREADS 1
#endif

#if GRISTMILL_CHILD_THREADS

namespace {

/// qemu's user mode ends a process that starts a thread in the child of a threaded one.
void skip_in_qemu() {
  if (std::getenv("GRISTMILL_TEST_QEMU") != nullptr)
    harness::skip("qemu's user mode cannot start threads in a child of fork");
}

bool each_task_ran_once(std::size_t tasks, int threads) {
  std::vector<std::atomic<int>> runs(tasks);
  parallel_for(tasks, threads, [&](std::size_t task) { runs[task].fetch_add(1); });
  return std::vector<int>(runs.begin(), runs.end()) == std::vector<int>(tasks, 1);
}

/// The child's exit status, or -1 if it has not ended within ten seconds.
int wait_for(pid_t child) {
  for (int i = 0; i < 10000; ++i) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    usleep(1000);
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return -1;
}

/// In a child of fork(): no workers at first, then `threads - 1` of its own.
bool child_builds_its_own_pool(int threads) {
  return pool_workers() == 0 && each_task_ran_once(64, threads) && pool_workers() == threads - 1;
}

}  // namespace

TEST(parallel_child_of_fork_has_its_own_workers) {
  skip_in_qemu();
  CHECK(each_task_ran_once(64, 3));
  CHECK(pool_workers() >= 2);
  for (int i = 0; i < (harness::quick() ? 3 : 50); ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(child_builds_its_own_pool(3) ? 0 : 1);
    CHECK_EQ(wait_for(child), 0);
  }
  CHECK(each_task_ran_once(64, 3));
}

TEST(parallel_fork_while_another_thread_runs_sections) {
  skip_in_qemu();
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop)
      parallel_for(32, 2, [](std::size_t) { std::this_thread::sleep_for(std::chrono::microseconds(2)); });
  });
  int failures = 0;
  for (int i = 0; i < (harness::quick() ? 3 : 100); ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(child_builds_its_own_pool(2) ? 0 : 1);
    failures += wait_for(child) != 0;
  }
  stop = true;
  other.join();
  CHECK_EQ(failures, 0);
}

TEST(parallel_fork_of_a_fork) {
  skip_in_qemu();
  CHECK(each_task_ran_once(64, 2));
  const pid_t child = fork();
  if (child == 0) {
    const bool works = child_builds_its_own_pool(2);
    const pid_t grandchild = fork();
    if (grandchild == 0) _exit(child_builds_its_own_pool(2) ? 0 : 1);
    _exit(works && wait_for(grandchild) == 0 ? 0 : 1);
  }
  CHECK_EQ(wait_for(child), 0);
}

#endif
