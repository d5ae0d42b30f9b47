#include "quantize_kernels.h"

namespace gristmill {

void install_quantize_avx512vnni(QuantizeKernels& slots) { (void)slots; }

}  // namespace gristmill
