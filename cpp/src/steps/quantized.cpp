#include "gristmill/steps/quantized.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <tuple>
#include <utility>

#include "affine_table.h"
#include "byte_sum.h"
#include "gristmill/isa.h"
#include "kernel_table.h"
#include "quantized_checks.h"
#include "step_checks.h"
#include "strided_loops.h"

namespace gristmill {
namespace {

/// The least and the greatest of the numbers and 0, where NaN is none.
std::pair<float, float> range_of_numbers(std::span<const float> x) {
  float low = 0, high = 0;
  for (const float number : x) {
    if (number < low) low = number;
    if (number > high) high = number;
  }
  return {low, high};
}

class DynamicQuantizeStep final : public Step {
 public:
  DynamicQuantizeStep(const Tensor& x, const Tensor& out, const Tensor& scale, const Tensor& zero_point)
      : kernels_(active_kernels().quantize),
        count_(element_count(x.shape(), "x")),
        x_(read("x", x)),
        out_(write("out", out)),
        scale_(write("scale", scale)),
        zero_point_(write("zero_point", zero_point)) {}

  void run(const Frame& frame) const override {
    const float* x = frame.at<const float>(x_);
    std::uint8_t* out = frame.at<std::uint8_t>(out_);
    float low = 0, high = 0;
    kernels_.min_max_run(x, count_, &low, &high);
    if (!std::isfinite(high - low)) std::tie(low, high) = range_of_numbers({x, count_});
    const float extent = high - low;
    if (!std::isfinite(extent)) {
      const auto point = static_cast<std::uint8_t>(std::isinf(low) ? 255 : 0);
      std::transform(x, x + count_, out, [point](float number) { return std::isfinite(number) ? point : 0; });
      *frame.at<float>(scale_) = std::numeric_limits<float>::infinity();
      *frame.at<std::uint8_t>(zero_point_) = point;
      return;
    }
    const float scale = extent == 0 ? 1.0f : std::max(extent / 255.0f, std::numeric_limits<float>::min());
    const float zero = std::nearbyint(std::clamp(0.0f - low / scale, 0.0f, 255.0f));
    const Affine map = division_map(scale, static_cast<std::int32_t>(zero));
    for_each_range(count_, kRangeBytes / sizeof(float), frame.threads,
                   [&](std::size_t begin, std::size_t end) {
                     kernels_.quantize_run(x + begin, out + begin, end - begin, map, false);
                   });
    *frame.at<float>(scale_) = scale;
    *frame.at<std::uint8_t>(zero_point_) = static_cast<std::uint8_t>(zero);
  }

  std::string kernel() const override { return "dynamic quantize"; }

 private:
  const QuantizeKernels& kernels_;
  std::size_t count_;
  Address x_, out_, scale_, zero_point_;
};

class LookupStep final : public Step {
 public:
  LookupStep(const Tensor& x, const Tensor& out, const std::array<std::uint8_t, 256>& table)
      : kernels_(active_kernels().elementwise),
        table_(table),
        count_(element_count(x.shape(), "x")),
        x_(read("x", x)),
        out_(write("out", out)) {}

  void run(const Frame& frame) const override {
    const auto* x = frame.at<const std::uint8_t>(x_);
    auto* out = frame.at<std::uint8_t>(out_);
    for_each_range(count_, kRangeBytes, frame.threads, [&](std::size_t begin, std::size_t end) {
      kernels_.lookup(table_.data(), x + begin, out + begin, end - begin);
    });
  }

  std::string kernel() const override { return "lookup"; }
  bool works_in_place() const override { return true; }

 private:
  const ElementwiseKernels& kernels_;
  std::array<std::uint8_t, 256> table_;
  std::size_t count_;
  Address x_, out_;
};

class QuantizedBinaryStep final : public Step {
 public:
  QuantizedBinaryStep(QuantizedFunction function, const QuantizedTensor& a, const QuantizedTensor& b,
                      const QuantizedTensor& out)
      : kernels_(active_kernels().elementwise),
        function_(function),
        loops_(broadcast_loops<3>(out.tensor, {&a.tensor, &b.tensor}, {"a", "b"})),
        job_(byte_sum(checked_map(a, "a"), checked_map(b, "b"), checked_map(out, "out"))),
        zero_a_(a.map.zero_point),
        zero_b_(b.map.zero_point),
        zero_out_(static_cast<float>(out.map.zero_point)),
        ratio_(a.map.scale * b.map.scale / out.map.scale),
        a_(read("a", a.tensor)),
        b_(read("b", b.tensor)),
        out_(write("out", out.tensor)) {
    if (function_ == QuantizedFunction::mul && !std::isfinite(ratio_ * 65536.0f))
      throw Error(ErrorKind::limit, "out", "its scale is too small for what is multiplied");
  }

  void run(const Frame& frame) const override {
    const auto* a = frame.at<const std::uint8_t>(a_);
    const auto* b = frame.at<const std::uint8_t>(b_);
    auto* out = frame.at<std::uint8_t>(out_);
    const auto& step = loops_.line().step;
    loops_.for_each_piece(1, frame.threads, [&](const auto& at, std::size_t count) {
      const Line line{a + at[1], b + at[2], step[1], step[2], out + at[0], count};
      function_ == QuantizedFunction::add ? add(line) : multiply(line);
    });
  }

  std::string kernel() const override {
    return function_ == QuantizedFunction::add ? "quantized add" : "quantized mul";
  }
  bool works_in_place() const override { return true; }

 private:
  struct Line {
    const std::uint8_t *a, *b;
    std::ptrdiff_t a_step, b_step;
    std::uint8_t* out;
    std::size_t count;
  };

  /// Elements that are `step` apart as neighbours: copied if they are not.
  static const std::uint8_t* neighbours(const std::uint8_t* from, std::ptrdiff_t step, std::size_t count,
                                        std::uint8_t* copy) {
    if (step == 1) return from;
    for (std::size_t i = 0; i < count; ++i, from += step) copy[i] = *from;
    return copy;
  }

  void add(const Line& line) const {
    constexpr std::size_t kPiece = 1024;
    std::uint8_t a[kPiece], b[kPiece];
    AddBytesJob job = job_;
    for (std::size_t i = 0; i < line.count; i += kPiece) {
      const auto offset = static_cast<std::ptrdiff_t>(i);
      job.count = std::min(kPiece, line.count - i);
      job.a = neighbours(line.a + offset * line.a_step, line.a_step, job.count, a);
      job.b = neighbours(line.b + offset * line.b_step, line.b_step, job.count, b);
      job.out = line.out + i;
      kernels_.add_bytes(job);
    }
  }

  void multiply(const Line& line) const {
    const std::uint8_t *a = line.a, *b = line.b;
    const std::int32_t zero_a = zero_a_ + job_.sign_a, zero_b = zero_b_ + job_.sign_b;
    for (std::size_t i = 0; i < line.count; ++i, a += line.a_step, b += line.b_step) {
      const std::int32_t product = ((*a ^ job_.sign_a) - zero_a) * ((*b ^ job_.sign_b) - zero_b);
      line.out[i] = nearest_byte(static_cast<float>(product) * ratio_ + zero_out_, job_.low, job_.high);
    }
  }

  const ElementwiseKernels& kernels_;
  QuantizedFunction function_;
  StridedLoops<3> loops_;
  AddBytesJob job_;
  std::int32_t zero_a_, zero_b_;
  float zero_out_, ratio_;
  Address a_, b_, out_;
};

}  // namespace

StepPtr dynamic_quantize_step(const Tensor& x, const Tensor& out, const Tensor& scale,
                              const Tensor& zero_point) {
  require_dtype("x", x, {DType::f32});
  require_dtype("out", out, {DType::u8});
  require_shape("out", out, x.shape());
  require_dtype("scale", scale, {DType::f32});
  require_dtype("zero_point", zero_point, {DType::u8});
  for (const auto& [name, tensor] : {Operand{"scale", scale}, {"zero_point", zero_point}})
    if (element_count(tensor.shape(), name) != 1)
      throw Error(ErrorKind::shape, name, "expected one element, got " + shape_text(tensor.shape()));
  return std::make_unique<const DynamicQuantizeStep>(x, out, scale, zero_point);
}

StepPtr lookup_step(const Tensor& x, const Tensor& out, const std::array<std::uint8_t, 256>& table) {
  require_dtype("x", x, {DType::u8, DType::s8});
  require_dtype("out", out, {DType::u8, DType::s8});
  require_shape("out", out, x.shape());
  return std::make_unique<const LookupStep>(x, out, table);
}

StepPtr quantized_binary_step(QuantizedFunction function, const QuantizedTensor& a, const QuantizedTensor& b,
                              const QuantizedTensor& out) {
  return std::make_unique<const QuantizedBinaryStep>(function, a, b, out);
}

}  // namespace gristmill
