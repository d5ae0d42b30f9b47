#include "dense_kernels.h"

namespace gristmill {

void install_dense_s8_avx2(DenseKernels& slots);
void install_dense_f32_avx2(DenseKernels& slots);

void install_dense_avx2(DenseKernels& slots) {
  install_dense_s8_avx2(slots);
  install_dense_f32_avx2(slots);
}

}  // namespace gristmill
