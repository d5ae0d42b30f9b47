#include "install.h"

namespace gristmill {

void install_calibrate_avx512vnni(CalibrateKernels& slots);
void install_quantize_avx512vnni(QuantizeKernels& slots);
void install_panel_avx512vnni(PanelKernels& slots);
void install_dense_avx512vnni(DenseKernels& slots);
void install_dense_f32_avx512vnni(DenseKernels& slots);
void install_depthwise_avx512vnni(DepthwiseKernels& slots);
void install_elementwise_avx512vnni(ElementwiseKernels& slots);
void install_pool_avx512vnni(PoolKernels& slots);
void install_sparse_avx512vnni(SparseKernels& slots);
void install_window_avx512vnni(WindowKernels& slots);

void install_avx512vnni(KernelTable& table) {
  install_calibrate_avx512vnni(table.calibrate);
  install_quantize_avx512vnni(table.quantize);
  install_panel_avx512vnni(table.panel);
  install_dense_avx512vnni(table.dense);
  install_dense_f32_avx512vnni(table.dense);
  install_depthwise_avx512vnni(table.depthwise);
  install_elementwise_avx512vnni(table.elementwise);
  install_pool_avx512vnni(table.pool);
  install_sparse_avx512vnni(table.sparse);
  install_window_avx512vnni(table.window);
}

}  // namespace gristmill
