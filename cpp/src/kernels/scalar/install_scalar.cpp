#include "install.h"

namespace gristmill {

void install_calibrate_scalar(CalibrateKernels& slots);
void install_quantize_scalar(QuantizeKernels& slots);
void install_panel_scalar(PanelKernels& slots);
void install_dense_scalar(DenseKernels& slots);
void install_dense_f32_scalar(DenseKernels& slots);
void install_depthwise_scalar(DepthwiseKernels& slots);
void install_elementwise_scalar(ElementwiseKernels& slots);
void install_pool_scalar(PoolKernels& slots);
void install_sparse_scalar(SparseKernels& slots);
void install_transpose_scalar(TransposeKernels& slots);
void install_weight_scalar(WeightKernels& slots);
void install_window_scalar(WindowKernels& slots);

void install_scalar(KernelTable& table) {
  install_calibrate_scalar(table.calibrate);
  install_quantize_scalar(table.quantize);
  install_panel_scalar(table.panel);
  install_dense_scalar(table.dense);
  install_dense_f32_scalar(table.dense);
  install_depthwise_scalar(table.depthwise);
  install_elementwise_scalar(table.elementwise);
  install_pool_scalar(table.pool);
  install_sparse_scalar(table.sparse);
  install_transpose_scalar(table.transpose);
  install_weight_scalar(table.weight);
  install_window_scalar(table.window);
}

}  // namespace gristmill
