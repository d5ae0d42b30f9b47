#include <algorithm>
#include <cmath>
#include <string>

#include "quantized_checks.h"
#include "ranges.h"
#include "step_checks.h"

namespace gristmill {
namespace {

class QuantizedSoftmaxStep final : public Step {
 public:
  QuantizedSoftmaxStep(const Tensor& x, const Tensor& out, std::size_t axis, const SoftmaxPowers& powers,
                       float steps, std::int32_t zero_point)
      : split_(split_at(x.shape(), axis)),
        empty_(element_count(x.shape(), "x") == 0),
        powers_(powers),
        steps_(steps),
        zero_(static_cast<std::uint8_t>(zero_point)),
        high_(static_cast<float>((out.dtype() == DType::s8 ? 127 : 255) - zero_point)),
        flip_(sign_of(x.dtype())),
        x_(read("x", x)),
        out_(write("out", out)) {}

  void run(const Frame& frame) const override {
    if (empty_) return;
    const auto* x = frame.at<const std::uint8_t>(x_);
    auto* out = frame.at<std::uint8_t>(out_);
    for_each_range(split_.outer * split_.inner, ceil_div(kRangeBytes, split_.extent * 16), frame.threads,
                   [&](std::size_t begin, std::size_t end) {
                     for (; begin < end; ++begin) {
                       const std::size_t outer = begin / split_.inner * split_.extent * split_.inner;
                       const std::size_t at = outer + begin % split_.inner;
                       softmax(x + at, out + at);
                     }
                   });
  }

  std::string kernel() const override { return "quantized softmax"; }
  bool works_in_place() const override { return true; }

 private:
  void softmax(const std::uint8_t* x, std::uint8_t* out) const {
    const std::size_t step = split_.inner, end = split_.extent * step;
    std::uint8_t greatest = 0;
    for (std::size_t i = 0; i < end; i += step)
      greatest = std::max(greatest, static_cast<std::uint8_t>(x[i] ^ flip_));
    const float* powers = powers_.data() + (255 - greatest);
    float sum = 0;
    for (std::size_t i = 0; i < end; i += step) sum += powers[x[i] ^ flip_];
    for (std::size_t i = 0; i < end; i += step) {
      const std::uint8_t q = nearest_byte(powers[x[i] ^ flip_] * steps_ / sum, 0.0f, high_);
      out[i] = static_cast<std::uint8_t>(q + zero_);
    }
  }

  AxisSplit split_;
  bool empty_;
  SoftmaxPowers powers_;
  float steps_;
  std::uint8_t zero_;
  float high_;
  std::uint8_t flip_;
  Address x_, out_;
};

}  // namespace

StepPtr quantized_softmax_step(const Tensor& x, const Tensor& out, std::int64_t axis,
                               const SoftmaxPowers& powers, float steps, std::int32_t zero_point) {
  require_dtype("x", x, {DType::u8, DType::s8});
  require_dtype("out", out, {x.dtype()});
  require_shape("out", out, x.shape());
  checked_map({out, {1, zero_point}}, "out");
  if (!(steps >= 1) || !std::isfinite(steps))
    throw Error(ErrorKind::argument, "steps", "expected at least 1, got " + std::to_string(steps));
  for (float power : powers)
    if (!(power >= 0) || !std::isfinite(power))
      throw Error(ErrorKind::argument, "powers", "expected finite numbers of at least 0");
  return std::make_unique<const QuantizedSoftmaxStep>(x, out, checked_axis(axis, x.rank(), "axis"), powers,
                                                      steps, zero_point);
}

}  // namespace gristmill
