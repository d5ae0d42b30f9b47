#include "gristmill/workspace.h"

#include <algorithm>

#include "gristmill/error.h"
#include "workspace_buffers.h"

namespace gristmill {

Workspace::Workspace() : buffers_(std::make_unique<Buffers>()) {}
Workspace::~Workspace() = default;
Workspace::Workspace(Workspace&&) noexcept = default;
Workspace& Workspace::operator=(Workspace&&) noexcept = default;

std::size_t Workspace::bytes() const noexcept {
  std::size_t total = buffers_->staged.bytes();
  for (const WorkerScratch& worker : buffers_->workers)
    total += worker.panel.bytes() + worker.plane.bytes() + worker.sums.bytes();
  return total;
}

void Workspace::trim(std::size_t most) noexcept {
  if (bytes() <= most) return;
  buffers_->staged.release();
  for (WorkerScratch& worker : buffers_->workers) {
    worker.panel.release();
    worker.plane.release();
    worker.sums.release();
  }
}

void Workspace::Buffers::prepare_workers(std::size_t count) {
  if (workers.size() < count) workers.resize(count);
  for (WorkerScratch& worker : workers) worker.packed_tile = WorkerScratch::kNone;
}

std::size_t worker_count(std::size_t tasks, int threads) {
  if (threads < 0)
    throw Error(ErrorKind::argument, "threads", "expected 0 or more, got " + std::to_string(threads));
  const int wanted = std::min(threads == 0 ? default_threads() : threads, kMaxThreads);
  return std::clamp<std::size_t>(tasks, 1, static_cast<std::size_t>(wanted));
}

}  // namespace gristmill
