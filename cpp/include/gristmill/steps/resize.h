#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gristmill/plan.h"

/// Resizing by interpolation along each axis, with the attributes of ONNX's Resize (antialias apart).
namespace gristmill {

struct ResizeParameters {
  std::string mode = "nearest";  ///< nearest, linear, cubic
  /// half_pixel, half_pixel_symmetric, pytorch_half_pixel, align_corners, asymmetric, tf_crop_and_resize
  std::string coordinates = "half_pixel";
  std::string rounding = "round_prefer_floor";  ///< nearest: also round_prefer_ceil, floor, ceil
  float cubic_a = -0.75f;
  bool exclude_outside = false;           ///< cubic: neighbours beyond the edge have no weight
  float extrapolation = 0;                ///< tf_crop_and_resize: the value of what lies outside of x
  std::vector<float> scales;              ///< one for each axis; without them out / in
  std::vector<float> roi_start, roi_end;  ///< tf_crop_and_resize: one for each axis
};

/// Only the last three axes may change. `nearest` takes any type, the others f32.
StepPtr resize_step(const Tensor& x, const Tensor& out, const ResizeParameters& parameters);

}  // namespace gristmill
