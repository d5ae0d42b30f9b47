#pragma once

#include <cstddef>
#include <cstdint>

#include "epilogue_kernels.h"

namespace gristmill {

/// The nearest integer, ties to even, of a value below 2^22 in magnitude: adding 1.5 * 2^23 leaves a float no
/// bits for a fraction.
static inline float round_half_even(float value) { return (value + 0x1.8p23f) - 0x1.8p23f; }

/// Sends accumulator `acc` of channel `channel` through the epilogue to out[index].
static inline void store_s8(const EpilogueS8& epilogue, std::size_t channel, std::int32_t acc, void* out,
                            std::size_t index) {
  const auto biased = static_cast<std::int32_t>(static_cast<std::uint32_t>(acc) +
                                                static_cast<std::uint32_t>(epilogue.bias[channel]));
  if (epilogue.type == OutputType::s32) {
    static_cast<std::int32_t*>(out)[index] = biased;
    return;
  }
  float value = static_cast<float>(biased) * epilogue.scale[channel];
  value = value > epilogue.low ? value : epilogue.low;
  value = value < epilogue.high ? value : epilogue.high;
  if (epilogue.type == OutputType::f32) {
    static_cast<float*>(out)[index] = value;
    return;
  }
  const std::int32_t q = static_cast<std::int32_t>(round_half_even(value)) + epilogue.zero_point;
  static_cast<std::uint8_t*>(out)[index] = static_cast<std::uint8_t>(q);
}

static inline float clamp_f32(float value, float low, float high) {
  value = value < low ? low : value;
  return value > high ? high : value;
}

/// What an f32 accumulator of channel `channel` is stored as, before a residual; NaN stays NaN.
static inline float finish_f32(const EpilogueF32& epilogue, std::size_t channel, float acc) {
  return clamp_f32(acc + epilogue.bias[channel], epilogue.low, epilogue.high);
}

}  // namespace gristmill
