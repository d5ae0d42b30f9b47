#include "depthwise_kernels.h"

namespace gristmill {

void install_depthwise_neon(DepthwiseKernels& slots) { (void)slots; }

}  // namespace gristmill
