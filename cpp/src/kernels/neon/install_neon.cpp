#include "install.h"

namespace gristmill {

void install_calibrate_neon(CalibrateKernels& slots);
void install_quantize_neon(QuantizeKernels& slots);
void install_panel_neon(PanelKernels& slots);
void install_dense_neon(DenseKernels& slots);
void install_depthwise_neon(DepthwiseKernels& slots);
void install_elementwise_neon(ElementwiseKernels& slots);
void install_pool_neon(PoolKernels& slots);
void install_sparse_neon(SparseKernels& slots);
void install_window_neon(WindowKernels& slots);

void install_neon(KernelTable& table) {
  install_calibrate_neon(table.calibrate);
  install_quantize_neon(table.quantize);
  install_panel_neon(table.panel);
  install_dense_neon(table.dense);
  install_depthwise_neon(table.depthwise);
  install_elementwise_neon(table.elementwise);
  install_pool_neon(table.pool);
  install_sparse_neon(table.sparse);
  install_window_neon(table.window);
}

}  // namespace gristmill
