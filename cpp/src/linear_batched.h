#pragma once

#include "batch_panels.h"
#include "packed_weights.h"

namespace gristmill {

/// One call of linear() with weights that are coupled for batches.
void linear_batched(const BatchCall& call, const PackedWeights& weights);

}  // namespace gristmill
