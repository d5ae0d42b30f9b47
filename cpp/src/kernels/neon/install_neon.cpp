#include "install.h"

namespace gristmill {

void install_calibrate_neon(CalibrateKernels& slots);
void install_quantize_neon(QuantizeKernels& slots);

void install_neon(KernelTable& table) {
  install_calibrate_neon(table.calibrate);
  install_quantize_neon(table.quantize);
}

}  // namespace gristmill
