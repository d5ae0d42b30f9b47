#pragma once

#include <cstddef>

namespace harness {

/// How often the test program has called operator new.
std::size_t allocation_count();

}  // namespace harness
