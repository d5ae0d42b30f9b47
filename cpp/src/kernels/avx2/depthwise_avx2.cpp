#include "depthwise_kernels.h"

namespace gristmill {

void install_depthwise_s8_avx2(DepthwiseKernels& slots);
void install_depthwise_f32_avx2(DepthwiseKernels& slots);
void install_depthwise_gather_s8_avx2(DepthwiseKernels& slots);
void install_depthwise_gather_f32_avx2(DepthwiseKernels& slots);
void install_depthwise_strips_f32_avx2(DepthwiseKernels& slots);
void install_depthwise_strips_s8_avx2(DepthwiseKernels& slots);

void install_depthwise_avx2(DepthwiseKernels& slots) {
  install_depthwise_s8_avx2(slots);
  install_depthwise_f32_avx2(slots);
  install_depthwise_gather_s8_avx2(slots);
  install_depthwise_gather_f32_avx2(slots);
  install_depthwise_strips_f32_avx2(slots);
  install_depthwise_strips_s8_avx2(slots);
}

}  // namespace gristmill
