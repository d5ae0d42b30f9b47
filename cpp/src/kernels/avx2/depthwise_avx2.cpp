#include "depthwise_kernels.h"

namespace gristmill {

void install_depthwise_avx2(DepthwiseKernels& slots) { (void)slots; }

}  // namespace gristmill
