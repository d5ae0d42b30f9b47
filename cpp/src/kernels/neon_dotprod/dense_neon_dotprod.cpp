#include "dense_kernels.h"

namespace gristmill {

void install_dense_neon_dotprod(DenseKernels& slots) { (void)slots; }

}  // namespace gristmill
