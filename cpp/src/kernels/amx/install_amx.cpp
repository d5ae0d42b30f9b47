#include "install.h"

namespace gristmill {

void install_calibrate_amx(CalibrateKernels& slots);
void install_dense_amx(DenseKernels& slots);

void install_amx(KernelTable& table) {
  install_calibrate_amx(table.calibrate);
  install_dense_amx(table.dense);
}

}  // namespace gristmill
