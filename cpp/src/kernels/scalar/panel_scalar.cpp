#include "panel_kernels.h"

namespace gristmill {

void install_panel_scalar(PanelKernels& slots) { (void)slots; }

}  // namespace gristmill
