#include "install.h"

namespace gristmill {

void install_neon_i8mm(KernelTable&) {}

}  // namespace gristmill
