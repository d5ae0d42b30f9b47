#include "quantize_kernels.h"

namespace gristmill {

void install_quantize_avx2(QuantizeKernels& slots) { (void)slots; }

}  // namespace gristmill
