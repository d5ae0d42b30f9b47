#include "kernels/neon/calibrate_chains.h"

namespace gristmill {
namespace {

std::uint64_t int8_macs(std::uint64_t rounds, std::uint32_t* sink) {
  return run_chains<16>(rounds, sink, [](int32x4_t sum, int8x16_t w) { return vdotq_s32(sum, w, w); });
}

}  // namespace

void install_calibrate_neon_dotprod(CalibrateKernels& slots) { slots.int8_macs = int8_macs; }

}  // namespace gristmill
