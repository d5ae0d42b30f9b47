#include "depthwise_kernels.h"

namespace gristmill {

void install_depthwise_s8_neon(DepthwiseKernels& slots);
void install_depthwise_f32_neon(DepthwiseKernels& slots);

void install_depthwise_neon(DepthwiseKernels& slots) {
  install_depthwise_s8_neon(slots);
  install_depthwise_f32_neon(slots);
}

}  // namespace gristmill
