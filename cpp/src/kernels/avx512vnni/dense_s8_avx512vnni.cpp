#include "kernels/avx512vnni/dense_s8_avx512vnni.h"

namespace gristmill {

void install_dense_s8_avx512vnni(DenseKernels& slots) {
  slots.general = dense_s8_variant<Avx512Vnni>();
  slots.no_saturation = slots.general;
}

}  // namespace gristmill
