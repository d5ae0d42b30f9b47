#include "install.h"

namespace gristmill {

void install_sparse_intel_avx512vnni(SparseKernels& slots);
void install_window_intel_avx512vnni(WindowKernels& slots);

void install_intel_avx512vnni(KernelTable& table) {
  install_sparse_intel_avx512vnni(table.sparse);
  install_window_intel_avx512vnni(table.window);
}

}  // namespace gristmill
