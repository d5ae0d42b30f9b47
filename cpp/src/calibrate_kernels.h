#pragma once

namespace gristmill {

/// Slots that drive one unit of the core at its limit, for calibration.
struct CalibrateKernels {};

}  // namespace gristmill
