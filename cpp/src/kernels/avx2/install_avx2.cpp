#include "install.h"

namespace gristmill {

void install_calibrate_avx2(CalibrateKernels& slots);
void install_quantize_avx2(QuantizeKernels& slots);
void install_panel_avx2(PanelKernels& slots);
void install_dense_avx2(DenseKernels& slots);
void install_dense_f32_avx2(DenseKernels& slots);
void install_depthwise_avx2(DepthwiseKernels& slots);
void install_elementwise_avx2(ElementwiseKernels& slots);
void install_pool_avx2(PoolKernels& slots);
void install_shift_avx2(PanelKernels& slots);
void install_sparse_avx2(SparseKernels& slots);
void install_transpose_avx2(TransposeKernels& slots);
void install_weight_avx2(WeightKernels& slots);
void install_window_avx2(WindowKernels& slots);

void install_avx2(KernelTable& table) {
  install_calibrate_avx2(table.calibrate);
  install_quantize_avx2(table.quantize);
  install_panel_avx2(table.panel);
  install_dense_avx2(table.dense);
  install_dense_f32_avx2(table.dense);
  install_depthwise_avx2(table.depthwise);
  install_elementwise_avx2(table.elementwise);
  install_pool_avx2(table.pool);
  install_shift_avx2(table.panel);
  install_sparse_avx2(table.sparse);
  install_transpose_avx2(table.transpose);
  install_weight_avx2(table.weight);
  install_window_avx2(table.window);
}

}  // namespace gristmill
