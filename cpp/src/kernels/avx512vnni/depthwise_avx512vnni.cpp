#include "depthwise_kernels.h"

namespace gristmill {

void install_depthwise_avx512vnni(DepthwiseKernels& slots) { (void)slots; }

}  // namespace gristmill
