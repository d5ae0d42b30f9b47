#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>

#include "gristmill/error.h"

namespace gristmill {

/// Largest count of elements or bytes that an argument may ask for: half the address space, so that
/// differences of addresses and small additions cannot overflow.
inline constexpr std::size_t kMostElements = std::numeric_limits<std::size_t>::max() / 4;

/// The product of `factors`; throws Error(limit) naming `where` if it is beyond kMostElements.
inline std::size_t checked_product(std::initializer_list<std::size_t> factors, const char* where) {
  for (std::size_t factor : factors)
    if (factor == 0) return 0;
  std::size_t product = 1;
  for (std::size_t factor : factors) {
    if (factor > kMostElements / product)
      throw Error(ErrorKind::limit, where, "its size is beyond the address space");
    product *= factor;
  }
  return product;
}

constexpr std::size_t ceil_div(std::size_t a, std::size_t b) { return a / b + (a % b != 0); }
constexpr std::size_t round_up(std::size_t a, std::size_t b) { return ceil_div(a, b) * b; }

}  // namespace gristmill
