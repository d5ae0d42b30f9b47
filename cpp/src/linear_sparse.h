#pragma once

#include "batch_panels.h"
#include "packed_windows.h"
#include "sparse_weights.h"

namespace gristmill {

/// One call of linear() with sparse weights.
struct SparseLinearCall : BatchCall {
  const SparseWeights& weights;
  const PackedWindows& windows;
};

void linear_sparse(const SparseLinearCall& call);

}  // namespace gristmill
