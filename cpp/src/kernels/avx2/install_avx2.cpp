#include "install.h"

namespace gristmill {

void install_calibrate_avx2(CalibrateKernels& slots);
void install_quantize_avx2(QuantizeKernels& slots);

void install_avx2(KernelTable& table) {
  install_calibrate_avx2(table.calibrate);
  install_quantize_avx2(table.quantize);
}

}  // namespace gristmill
