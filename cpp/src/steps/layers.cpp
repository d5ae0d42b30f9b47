#include "gristmill/steps/layers.h"

#include <optional>
#include <utility>

#include "checked_size.h"
#include "packed_weights.h"
#include "sparse_weights.h"
#include "staging.h"
#include "step_checks.h"

namespace gristmill {
namespace {

using Stage = std::shared_ptr<const OutputStage>;

/// What conv2d() and linear() check at every call, checked before the first.
template <class Weights>
void require_layer(const LayerInput& input, const Tensor& out, const Weights& weights, const WeightSums* sums,
                   const OutputStage& stage) {
  if (weights.is_f32())
    require_dtype("x", input.x, {DType::f32});
  else
    require_dtype("x", input.x, {DType::u8, DType::s8});
  require_zero_point("x_zero_point", input.x.dtype(), input.zero_point);
  if (input.zero_point_tensor != nullptr) {
    require_dtype("x_zero_point", *input.zero_point_tensor, {input.x.dtype()});
    require_dtype("x_zero_point", *input.zero_point_tensor, {DType::u8, DType::s8});
    if (element_count(input.zero_point_tensor->shape(), "x_zero_point") != 1)
      throw Error(ErrorKind::shape, "x_zero_point", "expected one element");
  }
  if (stage.f32_layer() != weights.is_f32() || stage.channels() != weights.out_channels())
    throw Error(ErrorKind::shape, "epilogue", "made for a layer of another type or channel count");
  if (sums != nullptr) {
    std::vector<std::int32_t> folded(stage.channels());
    stage.fold_bias(*sums, input.zero_point, folded);
  }
  require_dtype("out", out, {stage.output()});
  if (stage.has_residual() != (input.residual != nullptr))
    throw Error(ErrorKind::argument, "residual", "needed exactly when the epilogue adds one");
  if (input.residual == nullptr) return;
  require_dtype("residual", *input.residual, {stage.residual_type()});
  require_shape("residual", *input.residual, out.shape());
}

/// Elements behind x that convolutions may read: not those that they write at the same time.
std::size_t slack_behind(const Tensor& x, const Tensor& out) {
  if (x.place != Place::arena) return 0;
  const std::size_t end = x.offset + byte_count(x.type, "x");
  std::size_t slack = kArenaSlack;
  if (out.place == Place::arena && out.offset >= end) slack = std::min(slack, out.offset - end);
  return slack / element_size(x.dtype());
}

/// What both kinds of layers have, once the shapes have been checked.
template <class Weights>
class LayerStep : public Step {
 public:
  std::string kernel() const override { return weights_->variant_name(); }

 protected:
  LayerStep(std::shared_ptr<const Weights> weights, Stage stage)
      : weights_(std::move(weights)), stage_(std::move(stage)) {}

  void connect(const LayerInput& input, const Tensor& out) {
    x_ = read("x", input.x);
    zero_point_ = input.zero_point;
    if (input.zero_point_tensor != nullptr)
      zero_point_address_ = read("x_zero_point", *input.zero_point_tensor);
    if (input.residual != nullptr) residual_ = read("residual", *input.residual);
    out_ = write("out", out);
    signed_ = input.x.dtype() == DType::s8;
  }

  const void* x(const Frame& frame) const { return frame.at<const void>(x_); }
  const void* residual(const Frame& frame) const {
    return residual_ ? frame.at<const void>(*residual_) : nullptr;
  }
  void* out(const Frame& frame) const { return frame.at<void>(out_); }
  std::int32_t zero_point(const Frame& frame) const {
    if (!zero_point_address_) return zero_point_;
    const auto byte = *frame.at<const std::uint8_t>(*zero_point_address_);
    return signed_ ? static_cast<std::int8_t>(byte) : byte;
  }

  std::shared_ptr<const Weights> weights_;
  Stage stage_;

 private:
  Address x_{}, out_{};
  std::optional<Address> residual_, zero_point_address_;
  std::int32_t zero_point_ = 0;
  bool signed_ = false;
};

class ConvStep final : public LayerStep<PackedConv> {
 public:
  ConvStep(const LayerInput& input, const Tensor& out, std::shared_ptr<const PackedConv> weights, Stage stage)
      : LayerStep(std::move(weights), std::move(stage)) {
    require_rank("x", input.x, 4);
    const auto& shape = input.x.shape();
    if (shape[1] != weights_->in_channels())
      throw Error(
          ErrorKind::shape, "x",
          "expected " + std::to_string(weights_->in_channels()) + " channels, got " + shape_text(shape));
    const auto size = weights_->output_size(shape[2], shape[3]);
    require_shape("out", out, {shape[0], weights_->out_channels(), size[0], size[1]});
    require_layer(input, out, *weights_, weights_->is_f32() ? nullptr : &weights_->sums(), *stage_);
    PlaneLayout layout;
    layout.lay_out(*weights_, shape[2], shape[3]);
    checked_product({shape[1], layout.plane_elements(), sizeof(float)}, "x");
    connect(input, out);
    input_ = {nullptr,  input.x.dtype(), shape[0], shape[1],
              shape[2], shape[3],        0,        slack_behind(input.x, out)};
  }

  void run(const Frame& frame) const override {
    ConvInput input = input_;
    input.data = x(frame);
    input.zero_point = zero_point(frame);
    conv2d(*weights_, input, *stage_, residual(frame), out(frame), frame.threads, frame.workspace);
  }

 private:
  ConvInput input_{};
};

const WeightSums& sums_of(const PackedLinear& weights) {
  return weights.is_sparse() ? weights.sparse().sums() : weights.packed().sums();
}

class LinearStep final : public LayerStep<PackedLinear> {
 public:
  LinearStep(const LayerInput& input, const Tensor& out, std::shared_ptr<const PackedLinear> weights,
             Stage stage)
      : LayerStep(std::move(weights), std::move(stage)) {
    if (input.x.rank() == 0 || input.x.shape().back() != weights_->in_channels())
      throw Error(ErrorKind::shape, "x",
                  "expected " + std::to_string(weights_->in_channels()) + " columns, got " +
                      shape_text(input.x.shape()));
    std::vector<std::size_t> shape = input.x.shape();
    shape.back() = weights_->out_channels();
    require_shape("out", out, shape);
    require_layer(input, out, *weights_, weights_->is_f32() ? nullptr : &sums_of(*weights_), *stage_);
    shape.pop_back();
    const std::size_t rows = element_count(shape, "x");
    for (std::size_t columns : {weights_->in_channels(), weights_->out_channels()})
      checked_product({rows, columns, sizeof(float)}, "x");
    connect(input, out);
    input_ = {nullptr, input.x.dtype(), rows, weights_->in_channels(), 0};
  }

  void run(const Frame& frame) const override {
    LinearInput input = input_;
    input.data = x(frame);
    input.zero_point = zero_point(frame);
    linear(*weights_, input, *stage_, residual(frame), out(frame), frame.threads, frame.workspace);
  }

 private:
  LinearInput input_{};
};

}  // namespace

StepPtr conv_step(const LayerInput& input, const Tensor& out, std::shared_ptr<const PackedConv> weights,
                  Stage stage) {
  return std::make_unique<const ConvStep>(input, out, std::move(weights), std::move(stage));
}

StepPtr linear_step(const LayerInput& input, const Tensor& out, std::shared_ptr<const PackedLinear> weights,
                    Stage stage) {
  return std::make_unique<const LinearStep>(input, out, std::move(weights), std::move(stage));
}

}  // namespace gristmill
