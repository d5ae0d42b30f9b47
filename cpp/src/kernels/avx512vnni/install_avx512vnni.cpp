#include "install.h"

namespace gristmill {

void install_calibrate_avx512vnni(CalibrateKernels& slots);
void install_quantize_avx512vnni(QuantizeKernels& slots);

void install_avx512vnni(KernelTable& table) {
  install_calibrate_avx512vnni(table.calibrate);
  install_quantize_avx512vnni(table.quantize);
}

}  // namespace gristmill
