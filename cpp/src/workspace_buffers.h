#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "aligned_buffer.h"
#include "gristmill/parallel.h"
#include "gristmill/workspace.h"
#include "panel_kernels.h"
#include "staging.h"

namespace gristmill {

/// What one worker of a parallel section has to itself, cache lines included.
struct alignas(128) WorkerScratch {
  AlignedBuffer panel;  ///< packed activations
  AlignedBuffer plane;  ///< one staged plane
  AlignedBuffer sums;   ///< accumulators between K blocks
  std::vector<LaneRun> runs;
  std::size_t packed_tile = kNone;  ///< a number for the activations that `panel` holds

  static constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();
};

struct Workspace::Buffers {
  AlignedBuffer staged;  ///< planes of a convolution, or outputs of a linear layer before they are transposed
  std::vector<std::int32_t> folded_bias;
  std::vector<std::size_t> row_offset;
  PlaneLayout layout;
  std::vector<WorkerScratch> workers;

  /// At least that many workers' scratch, with nothing packed.
  void prepare_workers(std::size_t count);
};

/// Threads that a section of that many tasks can use.
std::size_t worker_count(std::size_t tasks, int threads);

/// Runs body(scratch, task) for every task on `workers.size()` or fewer threads, tasks in ascending order
/// within a thread, each thread with a scratch of its own.
template <class Body>
void for_each_task(Workspace::Buffers& buffers, std::size_t tasks, int threads, const Body& body) {
  const std::size_t count = worker_count(tasks, threads);
  buffers.prepare_workers(count);
  std::atomic<std::size_t> next{0};
  parallel_for(count, static_cast<int>(count), [&](std::size_t worker) {
    WorkerScratch& scratch = buffers.workers[worker];
    for (;;) {
      const std::size_t task = next.fetch_add(1, std::memory_order_relaxed);
      if (task >= tasks) return;
      body(scratch, task);
    }
  });
}

}  // namespace gristmill
