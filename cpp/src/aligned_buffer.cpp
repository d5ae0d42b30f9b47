#include "aligned_buffer.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gristmill {

/// A wish: where the system has none to give, small pages do.
void AlignedBuffer::ask_for_large_pages() noexcept {
#if defined(__linux__)
  madvise(data_, bytes_, MADV_HUGEPAGE);
#endif
}

}  // namespace gristmill
