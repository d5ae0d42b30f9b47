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
  for (const WorkerScratch& worker : buffers_->workers) total += worker.bytes();
  return total;
}

void Workspace::trim(std::size_t most) noexcept {
  if (bytes() <= most) return;
  buffers_->staged.release();
  for (WorkerScratch& worker : buffers_->workers) worker.release();
}

std::size_t worker_count(std::size_t tasks, int threads) {
  if (threads < 0)
    throw Error(ErrorKind::argument, "threads", "expected 0 or more, got " + std::to_string(threads));
  const int wanted = std::min(threads == 0 ? default_threads() : threads, kMaxThreads);
  return std::clamp<std::size_t>(tasks, 1, static_cast<std::size_t>(wanted));
}

}  // namespace gristmill
