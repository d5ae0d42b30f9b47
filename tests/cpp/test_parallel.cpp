#include <unistd.h>

#include <atomic>
#include <cfenv>
#include <chrono>
#include <ctime>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "gristmill/error.h"
#include "gristmill/parallel.h"
#include "harness.h"

using namespace gristmill;

namespace {

std::vector<int> runs_per_task(std::size_t tasks, int threads) {
  std::vector<std::atomic<int>> runs(tasks);
  parallel_for(tasks, threads, [&](std::size_t task) { runs[task].fetch_add(1); });
  return {runs.begin(), runs.end()};
}

void busy_for(std::chrono::microseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

/// Repeats sections until a worker has taken part in one, and returns the thread that did.
template <class Body>
bool run_until_a_worker_takes_part(Body body) {
  const auto caller = std::this_thread::get_id();
  for (int attempt = 0; attempt < 1000; ++attempt) {
    std::atomic<bool> helped{false};
    parallel_for(4, 2, [&](std::size_t) {
      if (std::this_thread::get_id() != caller) {
        body();
        helped = true;
      }
      busy_for(std::chrono::microseconds(100));
    });
    if (helped) return true;
  }
  return false;
}

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

TEST(parallel_runs_each_task_once) {
  for (std::size_t tasks : {0, 1, 2, 3, 7, 64, 1000})
    for (int threads : {0, 1, 2, 3, 8, kMaxThreads, 100000})
      CHECK(runs_per_task(tasks, threads) == std::vector<int>(tasks, 1));
}

TEST(parallel_workers_take_part) {
  CHECK(run_until_a_worker_takes_part([] {}));
  CHECK(pool_workers() >= 1);
}

TEST(parallel_many_short_sections) {
  const int sections = harness::quick() ? 500 : 20000;
  std::size_t sum = 0;
  for (int i = 0; i < sections; ++i) {
    std::size_t parts[5] = {};  // not atomic: the end of a section must publish what workers wrote
    parallel_for(5, 2 + i % 3, [&](std::size_t task) { parts[task] = task + 1; });
    sum += std::accumulate(std::begin(parts), std::end(parts), std::size_t{0});
  }
  CHECK_EQ(sum, std::size_t{15} * static_cast<std::size_t>(sections));
}

TEST(parallel_sections_after_sleep) {
  for (int i = 0; i < 100; ++i) {
    CHECK(runs_per_task(3, 3) == std::vector<int>(3, 1));
    usleep(static_cast<useconds_t>(i * 7 % 200));
  }
}

TEST(parallel_section_waits_for_its_slowest_task) {
  for (std::size_t slow : {0, 1, 2, 3}) {
    for (int i = 0; i < 5; ++i) {
      std::vector<int> done(4);
      parallel_for(4, 2, [&](std::size_t task) {
        std::this_thread::sleep_for(std::chrono::microseconds(task == slow ? 3000 : 200));
        done[task] = 1;
      });
      CHECK(done == std::vector<int>(4, 1));
    }
  }
}

TEST(parallel_negative_threads_is_an_error) {
  CHECK_THROWS(Error, parallel_for(2, -1, [](std::size_t) {}));
}

TEST(parallel_exception_reaches_the_caller) {
  for (std::size_t thrower : {0, 1, 50, 99}) {
    std::atomic<int> running{0};
    bool caught = false;
    try {
      parallel_for(100, 4, [&](std::size_t task) {
        ++running;
        if (task == thrower) {
          --running;
          throw std::runtime_error("task " + std::to_string(task));
        }
        busy_for(std::chrono::microseconds(5));
        --running;
      });
    } catch (const std::runtime_error& error) {
      caught = error.what() == "task " + std::to_string(thrower);
    }
    CHECK(caught);
    CHECK_EQ(running.load(), 0);
    CHECK(runs_per_task(10, 4) == std::vector<int>(10, 1));
  }
}

TEST(parallel_exception_of_every_task_is_one_exception) {
  for (int i = 0; i < 200; ++i)
    CHECK_THROWS(std::logic_error, parallel_for(8, 4, [](std::size_t) { throw std::logic_error("each"); }));
}

TEST(parallel_nested_sections_run) {
  std::atomic<int> runs{0};
  parallel_for(8, 4, [&](std::size_t) { parallel_for(8, 4, [&](std::size_t) { ++runs; }); });
  CHECK_EQ(runs.load(), 64);
}

TEST(parallel_several_callers) {
  const int sections = harness::quick() ? 100 : 3000;
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int caller = 0; caller < 6; ++caller)
    callers.emplace_back([&, caller] {
      for (int i = 0; i < sections; ++i) {
        std::vector<int> out(16);
        parallel_for(out.size(), 2 + (caller + i) % 4, [&](std::size_t task) { out[task] = caller + 1; });
        for (int value : out) wrong += value != caller + 1;
      }
    });
  for (std::thread& caller : callers) caller.join();
  CHECK_EQ(wrong.load(), 0);
}

TEST(parallel_default_threads_can_be_set) {
  const int before = default_threads();
  CHECK(before >= 1);
  set_default_threads(3);
  CHECK_EQ(default_threads(), 3);
  for (int bad : {0, -1, kMaxThreads + 1}) CHECK_THROWS(Error, set_default_threads(bad));
  CHECK_EQ(default_threads(), 3);
  set_default_threads(before);
}

TEST(parallel_workers_adopt_the_rounding_of_the_caller) {
  volatile double one = 1, ten = 10;
  const double nearest = one / ten;
  std::atomic<double> seen{0};
  std::fesetround(FE_DOWNWARD);
  const double below = one / ten;
  const bool helped = run_until_a_worker_takes_part([&] { seen = one / ten; });
  const int mode = std::fegetround();
  std::fesetround(FE_TONEAREST);
  CHECK(below < nearest);
  CHECK(helped);
  CHECK_EQ(seen.load(), below);
  CHECK_EQ(mode, FE_DOWNWARD);
  CHECK(run_until_a_worker_takes_part([&] { seen = one / ten; }));
  CHECK_EQ(seen.load(), nearest);
}

TEST(parallel_idle_workers_burn_nothing) {
  CHECK(runs_per_task(64, 4) == std::vector<int>(64, 1));
  usleep(50000);
  const double before = cpu_seconds();
  usleep(200000);
  CHECK(cpu_seconds() - before < 0.002);
}
