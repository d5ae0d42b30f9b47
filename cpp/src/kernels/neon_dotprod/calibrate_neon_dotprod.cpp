#include <arm_neon.h>

#include "calibrate_kernels.h"

namespace gristmill {
namespace {

constexpr std::uint64_t kChains = 12, kMacsPerStep = 16;

std::uint64_t int8_macs(std::uint64_t rounds, std::uint32_t* sink) {
  const int8x16_t w = vdupq_n_s8(77);
  const int first = static_cast<int>(*sink & 0xFF);
  const auto start = [=](int i) { return vdupq_n_s32(first + i); };
  int32x4_t a = start(0), b = start(1), c = start(2), d = start(3), e = start(4), f = start(5);
  int32x4_t g = start(6), h = start(7), i = start(8), j = start(9), k = start(10), l = start(11);
  for (std::uint64_t r = 0; r < rounds; ++r) {
    a = vdotq_s32(a, w, w), b = vdotq_s32(b, w, w), c = vdotq_s32(c, w, w), d = vdotq_s32(d, w, w);
    e = vdotq_s32(e, w, w), f = vdotq_s32(f, w, w), g = vdotq_s32(g, w, w), h = vdotq_s32(h, w, w);
    i = vdotq_s32(i, w, w), j = vdotq_s32(j, w, w), k = vdotq_s32(k, w, w), l = vdotq_s32(l, w, w);
  }
  const int32x4_t chains[kChains] = {a, b, c, d, e, f, g, h, i, j, k, l};
  *sink = 0;
  for (int32x4_t value : chains) *sink += static_cast<std::uint32_t>(vgetq_lane_s32(value, 0));
  return rounds * kChains * kMacsPerStep;
}

}  // namespace

void install_calibrate_neon_dotprod(CalibrateKernels& slots) { slots.int8_macs = int8_macs; }

}  // namespace gristmill
