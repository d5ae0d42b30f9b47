#include "install.h"

namespace gristmill {

void install_calibrate_scalar(CalibrateKernels& slots);
void install_quantize_scalar(QuantizeKernels& slots);

void install_scalar(KernelTable& table) {
  install_calibrate_scalar(table.calibrate);
  install_quantize_scalar(table.quantize);
}

}  // namespace gristmill
