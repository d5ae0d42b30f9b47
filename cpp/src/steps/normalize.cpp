#include "gristmill/steps/normalize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "ranges.h"
#include "step_checks.h"

namespace gristmill {
namespace {

/// (batch, channels, spatial...) as [batch][channels][plane].
AxisSplit planes_of(const Tensor& x) {
  if (x.rank() < 2) throw Error(ErrorKind::shape, "x", "expected (batch, channels, spatial...)");
  element_count(x.shape(), "x");
  return split_at(x.shape(), 1);
}

class LrnStep final : public Step {
 public:
  LrnStep(const Tensor& x, const Tensor& out, const LrnParameters& parameters)
      : split_(planes_of(x)),
        parameters_(parameters),
        before_(static_cast<std::size_t>((parameters.size - 1) / 2)),
        after_(static_cast<std::size_t>(parameters.size / 2)),
        x_(read("x", x)),
        out_(write("out", out)) {}

  void run(const Frame& frame) const override {
    const float* x = frame.at<const float>(x_);
    float* out = frame.at<float>(out_);
    const std::size_t channels = split_.extent, plane = split_.inner;
    for_each_range(split_.outer * channels, ceil_div(kRangeBytes / 16, plane + 1), frame.threads,
                   [&](std::size_t begin, std::size_t end) {
                     for (std::size_t i = begin; i < end; ++i) {
                       const std::size_t channel = i % channels;
                       const float* image = x + (i - channel) * plane;
                       normalize(image, channel, out + i * plane);
                     }
                   });
  }

  std::string kernel() const override { return "lrn"; }

 private:
  void normalize(const float* image, std::size_t channel, float* out) const {
    const std::size_t plane = split_.inner;
    const std::size_t first = channel - std::min(channel, before_);
    const std::size_t last = std::min(channel + after_, split_.extent - 1);
    std::fill_n(out, plane, 0.0f);
    for (std::size_t c = first; c <= last; ++c)
      for (std::size_t i = 0; i < plane; ++i) out[i] += image[c * plane + i] * image[c * plane + i];
    const float* x = image + channel * plane;
    const float alpha = parameters_.alpha / static_cast<float>(parameters_.size);
    if (parameters_.beta == 0.75f) {
      for (std::size_t i = 0; i < plane; ++i) {
        const float root = std::sqrt(parameters_.bias + alpha * out[i]);
        out[i] = x[i] / (root * std::sqrt(root));
      }
    } else {
      for (std::size_t i = 0; i < plane; ++i)
        out[i] = x[i] / std::pow(parameters_.bias + alpha * out[i], parameters_.beta);
    }
  }

  AxisSplit split_;
  LrnParameters parameters_;
  std::size_t before_, after_;
  Address x_, out_;
};

class InstanceNormStep final : public Step {
 public:
  InstanceNormStep(const Tensor& x, const Tensor& scale, const Tensor& bias, const Tensor& out, float epsilon)
      : split_(planes_of(x)),
        epsilon_(epsilon),
        x_(read("x", x)),
        scale_(read("scale", scale)),
        bias_(read("bias", bias)),
        out_(write("out", out)) {}

  void run(const Frame& frame) const override {
    const float* x = frame.at<const float>(x_);
    const float* scale = frame.at<const float>(scale_);
    const float* bias = frame.at<const float>(bias_);
    float* out = frame.at<float>(out_);
    const std::size_t plane = split_.inner;
    for_each_range(split_.outer * split_.extent, ceil_div(kRangeBytes / 4, plane + 1), frame.threads,
                   [&](std::size_t begin, std::size_t end) {
                     for (std::size_t i = begin; i < end; ++i)
                       normalize(x + i * plane, scale[i % split_.extent], bias[i % split_.extent],
                                 out + i * plane);
                   });
  }

  std::string kernel() const override { return "instance norm"; }
  bool works_in_place() const override { return true; }

 private:
  void normalize(const float* x, float scale, float bias, float* out) const {
    const std::size_t plane = split_.inner;
    double sum = 0, squares = 0;
    for (std::size_t i = 0; i < plane; ++i) sum += double{x[i]};
    const double mean = sum / static_cast<double>(plane);
    for (std::size_t i = 0; i < plane; ++i) squares += (double{x[i]} - mean) * (double{x[i]} - mean);
    const double deviation = std::sqrt(squares / static_cast<double>(plane) + double{epsilon_});
    const auto factor = static_cast<float>(double{scale} / deviation), shift = static_cast<float>(mean);
    for (std::size_t i = 0; i < plane; ++i) out[i] = (x[i] - shift) * factor + bias;
  }

  AxisSplit split_;
  float epsilon_;
  Address x_, scale_, bias_, out_;
};

}  // namespace

StepPtr lrn_step(const Tensor& x, const Tensor& out, const LrnParameters& parameters) {
  require_dtype("x", x, {DType::f32});
  require_dtype("out", out, {DType::f32});
  require_shape("out", out, x.shape());
  if (parameters.size < 1 || parameters.size > std::numeric_limits<std::int32_t>::max())
    throw Error(ErrorKind::argument, "size", "expected 1 or more, got " + std::to_string(parameters.size));
  return std::make_unique<const LrnStep>(x, out, parameters);
}

StepPtr instance_norm_step(const Tensor& x, const Tensor& scale, const Tensor& bias, const Tensor& out,
                           float epsilon) {
  for (const auto& [name, tensor] : {Operand{"x", x}, {"scale", scale}, {"bias", bias}, {"out", out}})
    require_dtype(name, tensor, {DType::f32});
  require_shape("out", out, x.shape());
  const AxisSplit split = planes_of(x);
  require_shape("scale", scale, {split.extent});
  require_shape("bias", bias, {split.extent});
  return std::make_unique<const InstanceNormStep>(x, scale, bias, out, epsilon);
}

}  // namespace gristmill
