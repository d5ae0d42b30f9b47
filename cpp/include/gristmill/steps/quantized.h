#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "gristmill/plan.h"
#include "gristmill/quantize.h"

/// Quantized tensors: conversions (quantize.h has their arithmetic) and arithmetic on bytes, which is that of
/// separate operators: dequantize, compute in f32, quantize. The same bits at every level.
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
/// to two tensors of one element. A run throws Error(argument) if x holds NaN or infinity.
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

/// out = quantize(function(dequantize(a), dequantize(b))), broadcast as numpy does; may work in place on an
/// operand that is not broadcast.
StepPtr quantized_binary_step(QuantizedFunction function, const QuantizedTensor& a, const QuantizedTensor& b,
                              const QuantizedTensor& out);

/// The mean of each plane of x (batch, channels, spatial...), requantized as ONNX Runtime does it: q =
/// requantize(sum - n * zero_x) with scale fl(scale_x / fl(scale_out * n)). Throws Error(limit) for planes of
/// which the sum could overflow.
StepPtr quantized_global_average_step(const QuantizedTensor& x, const QuantizedTensor& out);

}  // namespace gristmill
