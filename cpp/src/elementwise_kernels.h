#pragma once

#include <cstddef>
#include <cstdint>

/// Elementwise passes over stored values: what an epilogue does after the accumulators are stored, while the
/// tile is in cache, and what the same operator does when it stands alone.
///
/// Every slot computes each element by the same sequence of IEEE operations on every level, so results are
/// bit-identical. Outputs may be exactly the same array as an input; other overlaps are not allowed.
namespace gristmill {

/// out = quantize(dequantize(a) + dequantize(b)), as three separate operators would:
///
///     s   = fl(fl((a - zero_a) * scale_a) + fl((b - zero_b) * scale_b))
///     out = rne(min(max(fl(s / scale_out), low), high)) + zero_out
///
/// Elements are u8 after XOR with their array's flip (0x80 for s8 arrays, whose zero points are then raised
/// by 128). A NaN quotient becomes low.
struct AddBytesJob {
  const std::uint8_t *a, *b;
  std::uint8_t* out;
  std::size_t count;
  std::uint8_t flip_a, flip_b, flip_out;
  std::int32_t zero_a, zero_b, zero_out;  ///< in the domain of u8
  float scale_a, scale_b, scale_out;
  float low, high;  ///< whole numbers, from -zero_out to 255 - zero_out at most
};

/// Functions of one f32, computed as stated, in this order:
///
///     leaky_relu    x < 0 ? fl(alpha * x) : x
///     hardsigmoid   min(max(fl(fl(x * (1/6)) + 0.5), 0), 1)
///     hardswish     fl(x * hardsigmoid(x))
///     sigmoid       fl(1 / fl(1 + exp(-x)))
///     silu          fl(x * sigmoid(x))
///
/// exp is the polynomial of elementwise_exp in the kernel files: within 2 ulp, 0 and inf beyond the range.
enum class Curve : std::uint8_t { leaky_relu, hardsigmoid, hardswish, sigmoid, silu };

struct ElementwiseKernels {
  /// out[i] = table[in[i]]
  void (*lookup)(const std::uint8_t* table, const std::uint8_t* in, std::uint8_t* out, std::size_t count);
  void (*add_bytes)(const AddBytesJob& job);
  /// out[i] = min(max(fl(a[i] + b[i]), low), high), NaN stays NaN
  void (*add_f32)(const float* a, const float* b, float low, float high, float* out, std::size_t count);
  void (*curve_f32)(Curve curve, float alpha, const float* in, float* out, std::size_t count);
};

}  // namespace gristmill
