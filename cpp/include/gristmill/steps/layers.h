#pragma once

#include <cstdint>
#include <memory>

#include "gristmill/conv.h"
#include "gristmill/linear.h"
#include "gristmill/plan.h"

/// Layers with packed weights, which any number of plans may share. They run at their weights' level.
namespace gristmill {

/// What a layer reads besides its weights. `residual` is null unless the stage adds one. A zero point that is
/// only known when the plan runs is a tensor of one element of x's type.
struct LayerInput {
  Tensor x;
  std::int32_t zero_point = 0;
  const Tensor* zero_point_tensor = nullptr;
  const Tensor* residual = nullptr;
};

/// conv2d(): x and out are images in NCHW.
StepPtr conv_step(const LayerInput& input, const Tensor& out, std::shared_ptr<const PackedConv> weights,
                  std::shared_ptr<const OutputStage> stage);

/// linear(): the last axis of x and out holds the channels, all others together are the rows.
StepPtr linear_step(const LayerInput& input, const Tensor& out, std::shared_ptr<const PackedLinear> weights,
                    std::shared_ptr<const OutputStage> stage);

}  // namespace gristmill
