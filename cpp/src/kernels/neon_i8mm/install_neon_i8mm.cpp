#include "install.h"

namespace gristmill {

void install_dense_neon_i8mm(DenseKernels& slots);

void install_neon_i8mm(KernelTable& table) { install_dense_neon_i8mm(table.dense); }

}  // namespace gristmill
