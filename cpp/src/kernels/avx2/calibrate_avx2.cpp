#include "calibrate_kernels.h"

namespace gristmill {

void install_calibrate_avx2(CalibrateKernels& slots) { (void)slots; }

}  // namespace gristmill
