#include "install.h"

namespace gristmill {

void install_dense_neon_dotprod(DenseKernels& slots);

void install_neon_dotprod(KernelTable& table) { install_dense_neon_dotprod(table.dense); }

}  // namespace gristmill
