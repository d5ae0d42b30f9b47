#include "panel_kernels.h"

namespace gristmill {

void install_panel_avx2(PanelKernels& slots) { (void)slots; }

}  // namespace gristmill
