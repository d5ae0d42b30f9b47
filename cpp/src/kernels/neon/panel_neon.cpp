#include "panel_kernels.h"

namespace gristmill {

void install_panel_neon(PanelKernels& slots) { (void)slots; }

}  // namespace gristmill
