#pragma once

#include <arm_neon.h>

#include "calibrate_kernels.h"

namespace gristmill {
namespace {

/// Drives a multiply-add of two byte vectors into four sums, `macs_per_step` multiplications each, in twelve
/// chains that do not wait for each other. Step(sum, w) is one of them.
template <std::uint64_t macs_per_step, class Step>
std::uint64_t run_chains(std::uint64_t rounds, std::uint32_t* sink, Step step) {
  const int8x16_t w = vdupq_n_s8(77);
  const int first = static_cast<int>(*sink & 0xFF);
  const auto start = [=](int i) { return vdupq_n_s32(first + i); };
  int32x4_t a = start(0), b = start(1), c = start(2), d = start(3), e = start(4), f = start(5);
  int32x4_t g = start(6), h = start(7), i = start(8), j = start(9), k = start(10), l = start(11);
  for (std::uint64_t r = 0; r < rounds; ++r) {
    a = step(a, w), b = step(b, w), c = step(c, w), d = step(d, w), e = step(e, w), f = step(f, w);
    g = step(g, w), h = step(h, w), i = step(i, w), j = step(j, w), k = step(k, w), l = step(l, w);
  }
  const int32x4_t chains[] = {a, b, c, d, e, f, g, h, i, j, k, l};
  *sink = 0;
  for (int32x4_t value : chains) *sink += static_cast<std::uint32_t>(vgetq_lane_s32(value, 0));
  return rounds * 12 * macs_per_step;
}

}  // namespace
}  // namespace gristmill
