#include "depthwise_kernels.h"

namespace gristmill {

void install_depthwise_s8_avx512vnni(DepthwiseKernels& slots);
void install_depthwise_f32_avx512vnni(DepthwiseKernels& slots);
void install_depthwise_gather_f32_avx512vnni(DepthwiseKernels& slots);

void install_depthwise_avx512vnni(DepthwiseKernels& slots) {
  install_depthwise_s8_avx512vnni(slots);
  install_depthwise_f32_avx512vnni(slots);
  install_depthwise_gather_f32_avx512vnni(slots);
}

}  // namespace gristmill
