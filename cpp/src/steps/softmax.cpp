#include <algorithm>
#include <cmath>
#include <limits>

#include "gristmill/steps/reduce.h"
#include "ranges.h"
#include "step_checks.h"

namespace gristmill {
namespace {

/// Outputs that are worked on together where the axis is not the last one.
constexpr std::size_t kColumns = 64;

/// A block of `columns` neighbouring softmaxes; elements along the axis are `step` apart.
struct SoftmaxBlock {
  const float* x;
  float* out;
  std::size_t extent, step, columns;
};

void find_greatest(const SoftmaxBlock& block, float* greatest) {
  std::fill_n(greatest, block.columns, -std::numeric_limits<float>::infinity());
  for (std::size_t e = 0; e < block.extent; ++e) {
    const float* x = block.x + e * block.step;
    for (std::size_t c = 0; c < block.columns; ++c)
      greatest[c] = x[c] > greatest[c] || x[c] != x[c] ? x[c] : greatest[c];
  }
}

/// e^(x - max) / sum, and x - max - log(sum).
void softmax(const SoftmaxBlock& block, bool logarithm) {
  float greatest[kColumns], sum[kColumns];
  find_greatest(block, greatest);
  std::fill_n(sum, block.columns, 0.0f);
  for (std::size_t e = 0; e < block.extent; ++e) {
    const float* x = block.x + e * block.step;
    float* out = block.out + e * block.step;
    for (std::size_t c = 0; c < block.columns; ++c) {
      const float shifted = x[c] - greatest[c], power = std::exp(shifted);
      sum[c] += power;
      out[c] = logarithm ? shifted : power;
    }
  }
  if (logarithm)
    for (std::size_t c = 0; c < block.columns; ++c) sum[c] = std::log(sum[c]);
  for (std::size_t e = 0; e < block.extent; ++e) {
    float* out = block.out + e * block.step;
    for (std::size_t c = 0; c < block.columns; ++c) out[c] = logarithm ? out[c] - sum[c] : out[c] / sum[c];
  }
}

class SoftmaxStep final : public Step {
 public:
  SoftmaxStep(const Tensor& x, const Tensor& out, std::size_t axis, bool logarithm)
      : split_(split_at(x.shape(), axis)),
        empty_(element_count(x.shape(), "x") == 0),
        logarithm_(logarithm),
        x_(read("x", x)),
        out_(write("out", out)) {}

  void run(const Frame& frame) const override {
    if (empty_) return;
    const float* x = frame.at<const float>(x_);
    float* out = frame.at<float>(out_);
    const std::size_t blocks = ceil_div(split_.inner, kColumns), plane = split_.extent * split_.inner;
    const std::size_t work = split_.extent * std::min(kColumns, split_.inner) * sizeof(float) * 16;
    for_each_range(split_.outer * blocks, ceil_div(kRangeBytes, work), frame.threads,
                   [&](std::size_t first, std::size_t last) {
                     for (std::size_t i = first; i < last; ++i) {
                       const std::size_t column = i % blocks * kColumns, at = i / blocks * plane + column;
                       softmax({x + at, out + at, split_.extent, split_.inner,
                                std::min(kColumns, split_.inner - column)},
                               logarithm_);
                     }
                   });
  }

  std::string kernel() const override { return logarithm_ ? "log softmax" : "softmax"; }
  bool works_in_place() const override { return true; }

 private:
  AxisSplit split_;
  bool empty_, logarithm_;
  Address x_, out_;
};

}  // namespace

StepPtr softmax_step(const Tensor& x, const Tensor& out, std::int64_t axis, bool logarithm) {
  require_dtype("x", x, {DType::f32});
  require_dtype("out", out, {DType::f32});
  require_shape("out", out, x.shape());
  return std::make_unique<const SoftmaxStep>(x, out, checked_axis(axis, x.rank(), "axis"), logarithm);
}

}  // namespace gristmill
