#include "dense_kernels.h"

namespace gristmill {

void install_dense_s8_scalar(DenseKernels& slots);
void install_dense_f32_scalar(DenseKernels& slots);

void install_dense_scalar(DenseKernels& slots) {
  install_dense_s8_scalar(slots);
  install_dense_f32_scalar(slots);
}

}  // namespace gristmill
