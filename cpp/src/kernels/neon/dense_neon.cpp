#include "dense_kernels.h"

namespace gristmill {

void install_dense_neon(DenseKernels& slots) { (void)slots; }

}  // namespace gristmill
