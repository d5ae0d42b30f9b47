#include <atomic>
#include <vector>

#include "gristmill/workspace.h"
#include "harness.h"
#include "workspace_buffers.h"

using namespace gristmill;

TEST(parallel_worker_ranges_cover_each_task_once) {
  Workspace workspace;
  for (std::size_t tasks : {0, 1, 2, 5, 64, 1000})
    for (int threads : {1, 2, 3, 8}) {
      std::vector<std::atomic<int>> runs(tasks);
      for_each_task(workspace.buffers(), tasks, threads,
                    [&](WorkerScratch&, std::size_t task) { runs[task].fetch_add(1); });
      for (const auto& count : runs) CHECK(count == 1);
    }
}

TEST(parallel_worker_helps_with_the_range_of_a_late_one) {
  constexpr std::size_t kTasks = 10;
  Workspace workspace;
  for (int round = 0; round < 50; ++round) {
    std::vector<const WorkerScratch*> by(kTasks);
    std::vector<std::size_t> place(kTasks);
    std::atomic<std::size_t> started{0};
    for_each_task(workspace.buffers(), kTasks, 2, [&](WorkerScratch& scratch, std::size_t task) {
      by[task] = &scratch;
      place[task] = started.fetch_add(1);
      while (task == 0 && pool_workers() > 0 && started < kTasks) {
      }
    });
    for (std::size_t task = 1; task < kTasks; ++task) CHECK(pool_workers() == 0 || by[task] != by[0]);
    for (std::size_t task = kTasks / 2 + 1; task < kTasks; ++task) CHECK(place[task] > place[task - 1]);
    CHECK(pool_workers() == 0 || place[1] > place[kTasks - 1]);
  }
}
