#include "calibrate_kernels.h"

namespace gristmill {

void install_calibrate_scalar(CalibrateKernels& slots) { (void)slots; }

}  // namespace gristmill
