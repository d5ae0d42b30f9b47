#pragma once

#include <cstddef>
#include <cstdint>

/// Elementwise passes over stored values: what an epilogue does after the accumulators are stored, while the
/// tile is in cache, and what the same operator does when it stands alone.
///
/// Every slot computes each element by the same sequence of IEEE operations on every level, so results are
/// bit-identical. Outputs may be exactly the same array as an input; other overlaps are not allowed.
namespace gristmill {

/// The sum of two tensors of bytes in steps of a third:
///
///     v   = fma(a, ratio_a, fma(b, ratio_b, fixed))          each fma rounds once
///     out = rne(min(max(v, low), high))
///
/// for `rows` times `count` elements, of which the first of each row are `stride` apart in all three arrays.
/// byte_sum.h says what the numbers are. An array whose sign is 0x80 is s8, one whose sign is 0 is u8.
struct AddBytesJob {
  const std::uint8_t *a, *b;
  std::uint8_t* out;
  std::size_t rows, count, stride;
  std::uint8_t sign_a, sign_b, sign_out;
  float ratio_a, ratio_b, fixed;  ///< such that v is finite
  float low, high;                ///< whole numbers that out can hold
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
