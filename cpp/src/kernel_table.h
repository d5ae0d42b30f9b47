#pragma once

#include "calibrate_kernels.h"
#include "dense_kernels.h"
#include "depthwise_kernels.h"
#include "elementwise_kernels.h"
#include "panel_kernels.h"
#include "pool_kernels.h"
#include "quantize_kernels.h"
#include "sparse_kernels.h"
#include "transpose_kernels.h"
#include "weight_kernels.h"
#include "window_kernels.h"

/// The kernels of one level as plain function pointers: the seam between ISA-free drivers and ISA-specific
/// files.
///
/// Each area has its own slots in <area>_kernels.h. Kernel files include that header, intrinsics, fixed-width
/// types and headers of kernels/, and nothing else: any inline function of another header would be compiled
/// with the level's flags and could be linked into baseline code. Helpers in kernel files and in those
/// headers are static or in an unnamed namespace.
///
/// Contract of every slot: pointers are valid for exactly the elements named and nothing outside them is read
/// or written; no alignment is assumed; counts may be 0; input and output do not overlap unless the slot says
/// so.
namespace gristmill {

struct KernelTable {
  CalibrateKernels calibrate;
  QuantizeKernels quantize;
  PanelKernels panel;
  DenseKernels dense;
  DepthwiseKernels depthwise;
  PoolKernels pool;
  SparseKernels sparse;
  ElementwiseKernels elementwise;
  TransposeKernels transpose;
  WeightKernels weight;
  WindowKernels window;
};

}  // namespace gristmill
