#include "install.h"

namespace gristmill {

void install_depthwise_vbmi_avx512vnni(DepthwiseKernels& slots);
void install_window_vbmi_avx512vnni(WindowKernels& slots);

void install_vbmi_avx512vnni(KernelTable& table) {
  install_depthwise_vbmi_avx512vnni(table.depthwise);
  install_window_vbmi_avx512vnni(table.window);
}

}  // namespace gristmill
