#pragma once

namespace gristmill {

/// Whether the products of two weights and any u8 activations add up to what 16 bits hold, as instructions
/// that multiply bytes and add neighbours need it.
constexpr bool is_safe_pair(int a, int b) {
  return (a < 0) != (b < 0) || (a < 0 ? -a : a) + (b < 0 ? -b : b) <= 128;
}

}  // namespace gristmill
