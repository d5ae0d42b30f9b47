#include "calibrate_kernels.h"

namespace gristmill {

void install_calibrate_avx512vnni(CalibrateKernels& slots) { (void)slots; }

}  // namespace gristmill
