#include "dense_kernels.h"

namespace gristmill {

void install_dense_avx2(DenseKernels& slots) { (void)slots; }

}  // namespace gristmill
