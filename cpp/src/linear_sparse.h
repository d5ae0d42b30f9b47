#pragma once

#include "gristmill/linear.h"
#include "kernel_table.h"
#include "packed_windows.h"
#include "sparse_weights.h"
#include "workspace_buffers.h"

namespace gristmill {

/// One call of linear() with sparse weights, checked.
struct SparseLinearCall {
  const SparseWeights& weights;
  const PackedWindows& windows;
  const LinearInput& input;
  const OutputStage& stage;
  const void* residual;
  void* out;
  int threads;
  Workspace::Buffers& buffers;
  const KernelTable& kernels;
};

void linear_sparse(const SparseLinearCall& call);

}  // namespace gristmill
