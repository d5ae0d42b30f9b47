#pragma once

namespace gristmill {

/// Slots that convert contiguous runs between f32, int32 and int8.
struct QuantizeKernels {};

}  // namespace gristmill
