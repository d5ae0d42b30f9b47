#include "dense_kernels.h"

namespace gristmill {

void install_dense_neon_i8mm(DenseKernels& slots) { (void)slots; }

}  // namespace gristmill
