#include "calibrate_kernels.h"

namespace gristmill {

void install_calibrate_neon(CalibrateKernels& slots) { (void)slots; }

}  // namespace gristmill
