#include "kernels/pool_lines.h"

namespace gristmill {

void install_pool_avx2(PoolKernels& slots) { slots = pool_kernels<32>(); }

}  // namespace gristmill
