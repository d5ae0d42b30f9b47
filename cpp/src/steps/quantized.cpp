#include "gristmill/steps/quantized.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "affine_table.h"
#include "gristmill/isa.h"
#include "kernel_table.h"
#include "step_checks.h"
#include "strided_loops.h"

namespace gristmill {
namespace {

/// A byte tensor's map in the domain of u8, checked.
Affine affine_of(const QuantizedTensor& x, const char* name) {
  require_dtype(name, x.tensor, {DType::u8, DType::s8});
  try {
    return AffineTable({{&x.map.scale, 1}, {&x.map.zero_point, 1}, std::nullopt},
                       x.tensor.dtype() == DType::u8 ? QuantType::u8 : QuantType::s8, 1)
        .channel(0);
  } catch (const Error& error) {
    throw Error(error.kind(), name, error.where() + " " + error.reason());
  }
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
    const float extent = high - low;
    if (!std::isfinite(extent))
      throw Error(ErrorKind::argument, "x", "holds NaN, infinite or too large values");
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

/// Rounds half to even; exact for magnitudes below 2^22.
float round_half_even(float value) {
  constexpr float kRounder = 0x1.8p23f;
  return (value + kRounder) - kRounder;
}

class QuantizedBinaryStep final : public Step {
 public:
  QuantizedBinaryStep(QuantizedFunction function, const QuantizedTensor& a, const QuantizedTensor& b,
                      const QuantizedTensor& out)
      : kernels_(active_kernels().elementwise),
        function_(function),
        loops_(broadcast_loops<3>(out.tensor, {&a.tensor, &b.tensor}, {"a", "b"})),
        a_(read("a", a.tensor)),
        b_(read("b", b.tensor)),
        out_(write("out", out.tensor)) {
    const Affine maps[] = {affine_of(a, "a"), affine_of(b, "b"), affine_of(out, "out")};
    job_ = {nullptr,
            nullptr,
            nullptr,
            0,
            maps[0].flip,
            maps[1].flip,
            maps[2].flip,
            maps[0].zero_point,
            maps[1].zero_point,
            maps[2].zero_point,
            maps[0].scale,
            maps[1].scale,
            maps[2].scale,
            static_cast<float>(-maps[2].zero_point),
            static_cast<float>(255 - maps[2].zero_point)};
  }

  void run(const Frame& frame) const override {
    AddBytesJob whole = job_;
    whole.a = frame.at<const std::uint8_t>(a_);
    whole.b = frame.at<const std::uint8_t>(b_);
    whole.out = frame.at<std::uint8_t>(out_);
    const auto& step = loops_.line().step;
    const bool dense = function_ == QuantizedFunction::add && step[1] == 1 && step[2] == 1;
    loops_.for_each_piece(1, frame.threads, [&](const auto& at, std::size_t count) {
      AddBytesJob job = whole;
      job.a += at[1];
      job.b += at[2];
      job.out += at[0];
      job.count = count;
      if (dense)
        kernels_.add_bytes(job);
      else if (function_ == QuantizedFunction::add)
        combine(job, step[1], step[2], [](float a, float b) { return a + b; });
      else
        combine(job, step[1], step[2], [](float a, float b) { return a * b; });
    });
  }

  std::string kernel() const override {
    return function_ == QuantizedFunction::add ? "quantized add" : "quantized mul";
  }
  bool works_in_place() const override { return true; }

 private:
  /// What add_bytes does, with any function, for operands that may stay.
  template <class Function>
  static void combine(const AddBytesJob& job, std::ptrdiff_t a_step, std::ptrdiff_t b_step,
                      const Function& function) {
    const std::uint8_t *a = job.a, *b = job.b;
    for (std::size_t i = 0; i < job.count; ++i, a += a_step, b += b_step) {
      const float left = static_cast<float>((*a ^ job.flip_a) - job.zero_a) * job.scale_a;
      const float right = static_cast<float>((*b ^ job.flip_b) - job.zero_b) * job.scale_b;
      float value = function(left, right) / job.scale_out;
      value = value > job.low ? value : job.low;
      value = value < job.high ? value : job.high;
      const auto q = static_cast<std::int32_t>(round_half_even(value)) + job.zero_out;
      job.out[i] = static_cast<std::uint8_t>(q ^ job.flip_out);
    }
  }

  const ElementwiseKernels& kernels_;
  QuantizedFunction function_;
  StridedLoops<3> loops_;
  AddBytesJob job_;
  Address a_, b_, out_;
};

class QuantizedGlobalAverageStep final : public Step {
 public:
  QuantizedGlobalAverageStep(const QuantizedTensor& x, const QuantizedTensor& out)
      : kernels_(active_kernels().quantize), x_(read("x", x.tensor)), out_(write("out", out.tensor)) {
    const AxisSplit split = split_at(x.tensor.shape(), 1);
    planes_ = split.outer * split.extent;
    plane_ = split.inner;
    if (plane_ == 0) throw Error(ErrorKind::shape, "x", "has planes without elements");
    if (plane_ > kMostSummed)
      throw Error(ErrorKind::limit, "x",
                  "planes of " + std::to_string(plane_) + " elements could overflow int32");
    const Affine in = affine_of(x, "x"), to = affine_of(out, "out");
    flip_ = in.flip;
    bias_ = -in.zero_point * static_cast<std::int32_t>(plane_);
    map_ = to;
    map_.scale = in.scale / (to.scale * static_cast<float>(plane_));
    if (!std::isfinite(map_.scale)) throw Error(ErrorKind::limit, "out", "its scale is too small for x");
  }

  void run(const Frame& frame) const override {
    const auto* x = frame.at<const std::uint8_t>(x_);
    auto* out = frame.at<std::uint8_t>(out_);
    for_each_range(planes_, ceil_div(kRangeBytes, plane_), frame.threads,
                   [&](std::size_t begin, std::size_t end) { average(x, out, begin, end); });
  }

  std::string kernel() const override { return "quantized global average"; }

 private:
  static constexpr std::size_t kMostSummed = std::numeric_limits<std::int32_t>::max() / 255;

  void average(const std::uint8_t* x, std::uint8_t* out, std::size_t begin, std::size_t end) const {
    constexpr std::size_t kBatch = 256;
    std::int32_t sums[kBatch];
    for (; begin < end; begin += kBatch) {
      const std::size_t count = std::min(kBatch, end - begin);
      for (std::size_t p = 0; p < count; ++p) {
        const std::uint8_t* plane = x + (begin + p) * plane_;
        std::int32_t sum = bias_;
        for (std::size_t i = 0; i < plane_; ++i) sum += plane[i] ^ flip_;
        sums[p] = sum;
      }
      kernels_.requantize_run(sums, out + begin, count, map_, false);
    }
  }

  const QuantizeKernels& kernels_;
  std::size_t planes_, plane_;
  std::int32_t bias_;
  std::uint8_t flip_;
  Affine map_;
  Address x_, out_;
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

StepPtr quantized_global_average_step(const QuantizedTensor& x, const QuantizedTensor& out) {
  const auto& shape = x.tensor.shape();
  if (shape.size() < 2) throw Error(ErrorKind::shape, "x", "expected (batch, channels, spatial...)");
  std::vector<bool> reduced(shape.size(), true);
  reduced[0] = reduced[1] = false;
  require_reduced_shape("out", out.tensor, shape, reduced);
  element_count(shape, "x");
  return std::make_unique<const QuantizedGlobalAverageStep>(x, out);
}

}  // namespace gristmill
