#include "kernels/pool_lines.h"

namespace gristmill {

void install_pool_neon(PoolKernels& slots) { slots = pool_kernels<16>(); }

}  // namespace gristmill
