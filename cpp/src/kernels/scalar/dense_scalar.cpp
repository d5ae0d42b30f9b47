#include "dense_kernels.h"

namespace gristmill {

void install_dense_scalar(DenseKernels& slots) { (void)slots; }

}  // namespace gristmill
