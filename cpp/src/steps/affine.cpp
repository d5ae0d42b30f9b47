#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "affine_table.h"
#include "gristmill/isa.h"
#include "gristmill/steps/quantized.h"
#include "kernel_table.h"
#include "loop_nest.h"
#include "ranges.h"
#include "step_checks.h"

namespace gristmill {
namespace {

QuantType quant_type(DType type) { return type == DType::u8 ? QuantType::u8 : QuantType::s8; }

/// One conversion: kernels for runs of one channel and for lanes of repeating channels.
template <class In, class Out>
struct AffineKernels {
  void (*run)(const In*, Out*, std::size_t, const Affine&, bool);
  void (*lanes)(const In*, Out*, std::size_t, const AffineLanes&, bool);
  const char* name;
  bool divides = false;  ///< the kernels need AffineTable::prepare_division
};

/// x is [outer][channels][inner], contiguous, which as a Tail has `outer` repeats.
template <class In, class Out>
class AffineStep final : public Step {
 public:
  AffineStep(const AffineKernels<In, Out>& kernels, const Tensor& x, const Tensor& out,
             const Quantization& quantization, QuantType type)
      : kernels_(kernels),
        tail_(tail_of(x, quantization)),
        table_(params_of(x, quantization), type, tail_.channels),
        x_(read("x", x)),
        out_(write("out", out)) {
    if (kernels_.divides) table_.prepare_division();
    if (tail_.count != 0 && tail_.channels > 1 && tail_.inner < kShortRun) table_.expand(tail_.inner);
  }

  void run(const Frame& frame) const override {
    const In* x = frame.at<const In>(x_);
    Out* out = frame.at<Out>(out_);
    for_each_range(tail_.count, kRangeBytes / sizeof(float), frame.threads,
                   [&](std::size_t begin, std::size_t end) { convert(x, out, begin, end - begin); });
  }

  std::string kernel() const override { return kernels_.name; }

 private:
  static Tail tail_of(const Tensor& x, const Quantization& quantization) {
    Tail tail;
    tail.count = element_count(x.shape(), "x");
    if (!quantization.axis) return tail;
    const AxisSplit split = split_at(x.shape(), checked_axis(*quantization.axis, x.rank(), "axis"));
    tail.channels = split.extent;
    tail.inner = split.inner;
    return tail;
  }

  static QuantParams params_of(const Tensor& x, const Quantization& quantization) {
    QuantParams params{quantization.scale, quantization.zero_point, std::nullopt};
    if (quantization.axis) params.axis = checked_axis(*quantization.axis, x.rank(), "axis");
    return params;
  }

  void convert(const In* x, Out* out, std::size_t first, std::size_t count) const {
    if (count == 0) return;
    if (table_.expanded()) return kernels_.lanes(x + first, out + first, count, table_.lanes(first), false);
    for_each_run(tail_, first, count, [&](std::size_t channel, std::size_t start, std::size_t length) {
      kernels_.run(x + start, out + start, length, table_.channel(channel), false);
    });
  }

  AffineKernels<In, Out> kernels_;
  Tail tail_;
  AffineTable table_;
  Address x_, out_;
};

}  // namespace

StepPtr quantize_step(const Tensor& x, const Tensor& out, const Quantization& quantization) {
  require_dtype("x", x, {DType::f32});
  require_dtype("out", out, {DType::u8, DType::s8});
  require_shape("out", out, x.shape());
  const QuantizeKernels& kernels = active_kernels().quantize;
  return std::make_unique<const AffineStep<float, std::uint8_t>>(
      AffineKernels<float, std::uint8_t>{kernels.quantize_run, kernels.quantize_lanes, "quantize", true}, x,
      out, quantization, quant_type(out.dtype()));
}

StepPtr dequantize_step(const Tensor& x, const Tensor& out, const Quantization& quantization) {
  require_dtype("x", x, {DType::u8, DType::s8, DType::s32});
  require_dtype("out", out, {DType::f32});
  require_shape("out", out, x.shape());
  const QuantizeKernels& kernels = active_kernels().quantize;
  if (x.dtype() == DType::s32) {
    for (std::int32_t zero_point : quantization.zero_point)
      if (zero_point != 0) throw Error(ErrorKind::argument, "zero_point", "must be 0 for int32");
    return std::make_unique<const AffineStep<std::int32_t, float>>(
        AffineKernels<std::int32_t, float>{kernels.rescale_run, kernels.rescale_lanes, "rescale"}, x, out,
        quantization, QuantType::s8);
  }
  return std::make_unique<const AffineStep<std::uint8_t, float>>(
      AffineKernels<std::uint8_t, float>{kernels.dequantize_run, kernels.dequantize_lanes, "dequantize"}, x,
      out, quantization, quant_type(x.dtype()));
}

StepPtr requantize_step(const Tensor& x, const Tensor& out, const Quantization& quantization) {
  require_dtype("x", x, {DType::s32});
  require_dtype("out", out, {DType::u8, DType::s8});
  require_shape("out", out, x.shape());
  const QuantizeKernels& kernels = active_kernels().quantize;
  return std::make_unique<const AffineStep<std::int32_t, std::uint8_t>>(
      AffineKernels<std::int32_t, std::uint8_t>{kernels.requantize_run, kernels.requantize_lanes,
                                                "requantize"},
      x, out, quantization, quant_type(out.dtype()));
}

}  // namespace gristmill
