#include "install.h"

namespace gristmill {

void install_calibrate_neon_dotprod(CalibrateKernels& slots);
void install_dense_neon_dotprod(DenseKernels& slots);

void install_neon_dotprod(KernelTable& table) {
  install_calibrate_neon_dotprod(table.calibrate);
  install_dense_neon_dotprod(table.dense);
}

}  // namespace gristmill
