#include "dense_kernels.h"

namespace gristmill {

void install_dense_s8_neon(DenseKernels& slots);
void install_dense_f32_neon(DenseKernels& slots);

void install_dense_neon(DenseKernels& slots) {
  install_dense_s8_neon(slots);
  install_dense_f32_neon(slots);
}

}  // namespace gristmill
