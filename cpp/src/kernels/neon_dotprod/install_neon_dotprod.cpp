#include "install.h"

namespace gristmill {

void install_neon_dotprod(KernelTable&) {}

}  // namespace gristmill
