#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "epilogue_kernels.h"
#include "harness.h"

namespace harness {

using gristmill::EpilogueS8;
using gristmill::OutputType;

inline std::size_t up_to(Random& random, std::size_t most) {
  return static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(most)));
}

/// An int8 epilogue of one channel, with its operands.
struct EpilogueCase {
  std::int32_t bias;
  float scale;
  EpilogueS8 constants() const {
    return {&bias, &scale, low, high, zero_point, type, std::fabs(scale) < 1.0f};
  }
  float low, high;
  std::int32_t zero_point;
  OutputType type;
};

inline EpilogueCase random_epilogue(Random& random, OutputType type) {
  EpilogueCase epilogue{};
  epilogue.type = type;
  const std::int64_t most = up_to(random, 7) == 0 ? std::int64_t{1} << 30 : 100000;
  epilogue.bias = static_cast<std::int32_t>(random.integer(-most, most));
  epilogue.scale = static_cast<float>(std::exp2(3.0 - 15.0 * random.unit()));
  if (up_to(random, 3) == 0) epilogue.scale = -epilogue.scale;
  const int least = type == OutputType::s8 ? -128 : 0;
  epilogue.zero_point = static_cast<std::int32_t>(least + random.integer(0, 255));
  if (up_to(random, 2) == 0) epilogue.zero_point = least;  // which is left out
  epilogue.low = static_cast<float>(least - epilogue.zero_point);
  epilogue.high = static_cast<float>(least + 255 - epilogue.zero_point);
  if (type == OutputType::f32) {
    epilogue.low = -std::numeric_limits<float>::infinity();
    epilogue.high = std::numeric_limits<float>::infinity();
  }
  if (up_to(random, 1) == 0) epilogue.low = std::max(epilogue.low, 0.0f);
  if (up_to(random, 3) == 0) epilogue.high = std::min(epilogue.high, 6.5f);
  epilogue.high = std::max(epilogue.high, epilogue.low);
  return epilogue;
}

inline std::size_t element_bytes(OutputType type) {
  return type == OutputType::u8 || type == OutputType::s8 ? 1 : 4;
}

/// The bytes of one output element, from the definition in epilogue.h.
inline std::uint32_t expected_output(const EpilogueCase& epilogue, std::int64_t sum) {
  const auto total = static_cast<std::int32_t>(sum + epilogue.bias);
  if (epilogue.type == OutputType::s32) return static_cast<std::uint32_t>(total);
  const float product = static_cast<float>(total) * epilogue.scale;
  const float value = std::min(epilogue.high, std::max(epilogue.low, product));  // the bound of two zeros
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, 4);
  if (epilogue.type == OutputType::f32) return bits;
  return static_cast<std::uint8_t>(std::lrint(std::nearbyint(value)) + epilogue.zero_point);
}

}  // namespace harness
