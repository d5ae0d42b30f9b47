#include "kernels/pool_lines.h"

namespace gristmill {

void install_pool_avx512vnni(PoolKernels& slots) { slots = pool_kernels<64>(); }

}  // namespace gristmill
