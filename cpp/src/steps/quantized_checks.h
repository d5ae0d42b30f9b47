#pragma once

#include <cstdint>

#include "byte_sum.h"
#include "gristmill/steps/quantized.h"

namespace gristmill {

/// Type and map of a tensor of bytes. Throws Error naming it if it is none, or its map is out of range.
ByteMap checked_map(const QuantizedTensor& x, const char* name);

/// rne(min(max(value, low), high)) as a byte; the bounds are whole numbers that it can hold.
inline std::uint8_t nearest_byte(float value, float low, float high) {
  constexpr float kRounder = 0x1.8p23f;
  value = value > low ? value : low;
  value = value < high ? value : high;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>((value + kRounder) - kRounder));
}

}  // namespace gristmill
