#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "gristmill/plan.h"
#include "gristmill/quantize.h"
#include "gristmill/steps/pool.h"

/// Quantized tensors: conversions (quantize.h has their arithmetic) and arithmetic on bytes, which rounds
/// where ONNX Runtime's QLinear operators round on x86-64 (with AVX2). The same bits at every level.
namespace gristmill {

/// QuantParams that own their numbers; the axis may count from the back.
struct Quantization {
  std::vector<float> scale;
  std::vector<std::int32_t> zero_point;
  std::optional<std::int64_t> axis;
};

/// f32 to u8 or s8, as quantize().
StepPtr quantize_step(const Tensor& x, const Tensor& out, const Quantization& quantization);

/// u8 or s8 to f32, as dequantize(); s32 to f32, as rescale().
StepPtr dequantize_step(const Tensor& x, const Tensor& out, const Quantization& quantization);

/// s32 to u8 or s8, as requantize().
StepPtr requantize_step(const Tensor& x, const Tensor& out, const Quantization& quantization);

/// f32 to u8 with a scale and zero point chosen from the range of x, zero included, in f32; these are written
/// to two tensors of one element. NaN has no part in the range. A range that f32 cannot hold has an infinite
/// scale: finite numbers become the zero point, which is 255 if the least is -inf, else 0; others become 0.
StepPtr dynamic_quantize_step(const Tensor& x, const Tensor& out, const Tensor& scale,
                              const Tensor& zero_point);

/// out = table[x], where s8 indexes as the byte it is; x and out are u8 or s8. May work in place.
StepPtr lookup_step(const Tensor& x, const Tensor& out, const std::array<std::uint8_t, 256>& table);

/// A byte tensor and its map.
struct QuantizedTensor {
  Tensor tensor;
  ScaleAndZeroPoint map;
};

enum class QuantizedFunction : std::uint8_t { add, mul };

/// The sum of a and b, as byte_sum.h says, or their product: with p = (a - zero_a) * (b - zero_b),
///
///     out = rne(fl(fl(f32(p) * fl(fl(scale_a * scale_b) / scale_out)) + zero_out))
///
/// saturated. Broadcast as numpy does; may work in place on an operand that is not broadcast.
StepPtr quantized_binary_step(QuantizedFunction function, const QuantizedTensor& a, const QuantizedTensor& b,
                              const QuantizedTensor& out);

/// The mean of each window of x (batch, channels, spatial...), which is f32 arithmetic, one operation at a
/// time: fl((x - zero_x) * scale_x) for each element, added up in their order, divided by their number and by
/// the scale of out, plus its zero point, rounded to even and saturated.
StepPtr quantized_average_step(const PoolWindow& window, const QuantizedTensor& x,
                               const QuantizedTensor& out);

/// The powers of e that a softmax takes for bytes of which the greatest is 255, times a common factor.
using SoftmaxPowers = std::array<float, 256>;

/// Softmax along an axis: with p = powers[x + 255 - greatest x] (s8 raised by 128),
///
///     out = rne(fl(fl(p * steps) / sum of p)) + zero_point
///
/// saturated, where `steps` is how many steps of out make one. May work in place.
StepPtr quantized_softmax_step(const Tensor& x, const Tensor& out, std::int64_t axis,
                               const SoftmaxPowers& powers, float steps, std::int32_t zero_point);

/// The mean of each plane of x (batch, channels, spatial...), requantized as ONNX Runtime does it: q =
/// requantize(sum - n * zero_x) with scale fl(scale_x / fl(scale_out * n)). Throws Error(limit) for planes of
/// which the sum could overflow.
StepPtr quantized_global_average_step(const QuantizedTensor& x, const QuantizedTensor& out);

}  // namespace gristmill
