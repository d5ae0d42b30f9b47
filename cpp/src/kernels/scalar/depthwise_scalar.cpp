#include "depthwise_kernels.h"

namespace gristmill {

void install_depthwise_scalar(DepthwiseKernels& slots) { (void)slots; }

}  // namespace gristmill
