#include "quantize_kernels.h"

namespace gristmill {

void install_quantize_scalar(QuantizeKernels& slots) { (void)slots; }

}  // namespace gristmill
