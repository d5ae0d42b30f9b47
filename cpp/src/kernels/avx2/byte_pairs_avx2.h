#pragma once

#include <cstdint>

/// Pairs of weights for vpmaddubsw, which adds two u8 x s8 products in 16 bits: these hold the sum whatever
/// the bytes if the weights have opposite signs or |w0| + |w1| <= kPairLimit.
namespace gristmill {
namespace {

constexpr int kPairLimit = 128;

inline int magnitude(int weight) { return weight < 0 ? -weight : weight; }

inline bool may_pair(int a, int b) { return (a < 0) != (b < 0) || magnitude(a) + magnitude(b) <= kPairLimit; }

/// The bytes w0 w1 w0 w1.
inline std::uint32_t pair_bytes(int w0, int w1) {
  return 0x00010001u * static_cast<std::uint8_t>(w0) + 0x01000100u * static_cast<std::uint8_t>(w1);
}

}  // namespace
}  // namespace gristmill
