#include "quantize_kernels.h"

namespace gristmill {

void install_quantize_neon(QuantizeKernels& slots) { (void)slots; }

}  // namespace gristmill
