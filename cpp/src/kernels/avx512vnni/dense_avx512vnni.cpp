#include "dense_kernels.h"

namespace gristmill {

void install_dense_s8_avx512vnni(DenseKernels& slots);
void install_dense_f32_avx512vnni(DenseKernels& slots);

void install_dense_avx512vnni(DenseKernels& slots) {
  install_dense_s8_avx512vnni(slots);
  install_dense_f32_avx512vnni(slots);
}

}  // namespace gristmill
