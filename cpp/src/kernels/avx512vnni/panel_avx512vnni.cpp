#include "panel_kernels.h"

namespace gristmill {

void install_panel_avx512vnni(PanelKernels& slots) { (void)slots; }

}  // namespace gristmill
