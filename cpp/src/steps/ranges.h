#pragma once

#include <algorithm>
#include <cstddef>

#include "checked_size.h"
#include "gristmill/parallel.h"
#include "workspace_buffers.h"

namespace gristmill {

/// Bytes of output below which a loop is not worth a second thread.
inline constexpr std::size_t kRangeBytes = std::size_t{1} << 16;

/// Cuts [0, count) into equal ranges of about `grain` or more for the threads: body(begin, end).
template <class Body>
void for_each_range(std::size_t count, std::size_t grain, int threads, const Body& body) {
  const std::size_t pieces = count / std::max<std::size_t>(grain, 1);
  const std::size_t ranges = pieces < 2 ? 1 : worker_count(pieces, threads);
  if (ranges == 1) return body(std::size_t{0}, count);
  parallel_for(ranges, static_cast<int>(ranges),
               [&](std::size_t i) { body(count * i / ranges, count * (i + 1) / ranges); });
}

}  // namespace gristmill
