#include "install.h"

namespace gristmill {

void install_calibrate_neon_i8mm(CalibrateKernels& slots);
void install_dense_neon_i8mm(DenseKernels& slots);
void install_sparse_neon_i8mm(SparseKernels& slots);

void install_neon_i8mm(KernelTable& table) {
  install_calibrate_neon_i8mm(table.calibrate);
  install_dense_neon_i8mm(table.dense);
  install_sparse_neon_i8mm(table.sparse);
}

}  // namespace gristmill
