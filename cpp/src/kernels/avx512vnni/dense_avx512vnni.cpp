#include "dense_kernels.h"

namespace gristmill {

void install_dense_avx512vnni(DenseKernels& slots) { (void)slots; }

}  // namespace gristmill
