#pragma once

#include "gristmill/epilogue.h"
#include "kernel_table.h"
#include "workspace_buffers.h"

namespace gristmill {

/// What the checked calls of all layers have.
struct LayerCall {
  const OutputStage& stage;
  const void* residual;  ///< null without
  void* out;
  int threads;
  Workspace::Buffers& buffers;
  const KernelTable& kernels;
};

}  // namespace gristmill
