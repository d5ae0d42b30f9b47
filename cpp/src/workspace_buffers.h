#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "aligned_buffer.h"
#include "gristmill/parallel.h"
#include "gristmill/workspace.h"
#include "panel_kernels.h"
#include "shifted_planes.h"
#include "sliding_rows.h"
#include "staging.h"

namespace gristmill {

/// The next task of a worker's range, in cache lines that hold nothing else.
struct alignas(128) TaskCounter {
  TaskCounter() = default;
  TaskCounter(TaskCounter&&) noexcept {}  // no section runs while workers are added
  std::atomic<std::size_t> next{0};
};

/// What one worker of a parallel section has to itself, cache lines included. Whatever tasks derive from the
/// layer and read often belongs here: a core that rewrites what another has read waits for every cache line.
struct alignas(128) WorkerScratch {
  AlignedBuffer panel;   ///< packed activations
  AlignedBuffer staged;  ///< planes of one image's group, or outputs before they are transposed
  AlignedBuffer plane;   ///< one plane
  AlignedBuffer sums;    ///< accumulators between K blocks
  AlignedBuffer masks;   ///< of the taps of shifted planes
  std::vector<LaneRun> runs;
  std::vector<std::int32_t> folded_bias;
  std::vector<std::size_t> row_offset;
  std::size_t packed_tile = kNone;   ///< a number for the activations that `panel` holds
  std::size_t staged_group = kNone;  ///< a number for those that `staged` holds
  std::size_t masked_lanes = kNone;  ///< the output position of lane 0 of `masks`
  bool prepared = false;             ///< for the driver: whether what is the layer's has been derived
  TaskCounter tasks;

  static constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

  /// Forgets what the section before left behind.
  void renew() noexcept {
    packed_tile = staged_group = masked_lanes = kNone;
    prepared = false;
  }
  std::size_t bytes() const noexcept {
    return panel.bytes() + staged.bytes() + plane.bytes() + sums.bytes() + masks.bytes();
  }
  void release() noexcept {
    for (AlignedBuffer* buffer : {&panel, &staged, &plane, &sums, &masks}) buffer->release();
  }
};

struct Workspace::Buffers {
  AlignedBuffer staged;  ///< outputs of a linear layer before they are transposed
  std::vector<std::int32_t> folded_bias;
  PlaneLayout layout;
  ShiftedPlanes shifted;
  SlidingRows sliding;
  std::vector<WorkerScratch> workers;
};

/// Threads that a section of that many tasks can use.
std::size_t worker_count(std::size_t tasks, int threads);

/// Runs body(scratch, task) for every task on at most `threads` threads, each with a scratch of its own.
///
/// Every worker has a range of consecutive tasks, about as many as the others, and takes them in ascending
/// order; then it helps with the others' ranges. Sections of equal shape thus give a worker the same part of
/// the data again, which its core's caches still hold, and neighbouring tasks, which share data, to one
/// worker.
template <class Body>
void for_each_task(Workspace::Buffers& buffers, std::size_t tasks, int threads, const Body& body) {
  const std::size_t count = worker_count(tasks, threads);
  auto& workers = buffers.workers;
  if (workers.size() < count) workers.resize(count);
  const auto range_start = [&](std::size_t worker) {
    return tasks / count * worker + std::min(worker, tasks % count);
  };
  for (std::size_t w = 0; w < count; ++w)
    workers[w].tasks.next.store(range_start(w), std::memory_order_relaxed);
  parallel_for(count, static_cast<int>(count), [&](std::size_t worker) {
    WorkerScratch& scratch = workers[worker];
    scratch.renew();
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t owner = worker + i < count ? worker + i : worker + i - count;
      const std::size_t end = range_start(owner + 1);
      for (;;) {
        const std::size_t task = workers[owner].tasks.next.fetch_add(1, std::memory_order_relaxed);
        if (task >= end) break;
        body(scratch, task);
      }
    }
  });
}

}  // namespace gristmill
