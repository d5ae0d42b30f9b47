#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "gristmill/array_view.h"

/// Quantization: maps between reals and 8-bit integers.
///
/// A real x and its integer q are tied by a scale s and a zero point z, one pair for a tensor or one for each
/// channel (the index along one axis):
///
///     quantize      q = clamp(rne(fl(x / s)) + z, qmin, qmax)
///     dequantize    x = fl((q - z) * s)
///     requantize    q = clamp(rne(fl(fl(acc) * s)) + z, qmin, qmax)
///     rescale       y = fl(fl(acc) * s)
///
/// fl() rounds to f32, rne() to the nearest integer with ties to even; q - z is exact. Every operation in
/// fl() is one IEEE operation and no two are fused, so the results are the same bits on every instruction
/// set, with any number of threads and for any memory layout, and those of ONNX Runtime. NaN quantizes to
/// qmin, +-inf saturate. u8 holds 0..255, s8 -128..127. Scales are finite and > 0, denormal ones included;
/// zero points lie in the integer's range.
///
/// Exact division without a divider. Dividing costs several times what the memory traffic does, so vector
/// kernels multiply by a reciprocal and prove for each element that the rounded quotient comes out the same.
/// Let d = fl(x / s), and consider, in units of 2^-16 (kFixedOne = 65536),
///
///     Z = 65536 (d + z + 1/2),   so that rne(d) + z = floor(Z / 65536) whenever d is not a tie,
///     r = fl(65536 / s),         c = 65536 (z + 1/2) + kTieMargin   (an integer below 2^24: exact),
///     Y = rne(fl(x r + c))       (one fused multiply-add, one conversion to s32).
///
/// Wherever the result does not saturate, |d| <= 255.5 and |x r + c| < 2^25. Then Y - kTieMargin differs from
/// Z by less than kTieMargin = 5:
///
///     r instead of 65536 / s      |x / s| 65536 * 2^-24         <= 1
///     rounding of the fused fl()  half a spacing below 2^25     <= 1
///     conversion to an integer    half a unit                   <= 1/2
///     d instead of x / s          65536 * half a spacing of d   <= 1/2
///
/// so Z < Y < Z + 10. If the low 16 bits of Y are 10 or more, no multiple of 65536 lies from Z to Y: d is not
/// a tie and the result is Y >> 16. Otherwise, once in about 6500 random elements, the group of elements is
/// divided. Y is a monotone function of x, so beyond the range it lies beyond the bounds too and saturates
/// alike. A conversion that fails, of NaN or beyond s32, gives -2^31 on x86; its low bits are 0, and the
/// group is divided. On ARM it gives the same downward and 0 for NaN, with the same effect, and 2^31 - 1
/// upward, which saturates as it should.
///
/// r is finite when s > 2^-112, and never denormal. Smaller scales take r = 0 and c = kTieMargin: then Y is 5
/// for finite x and the conversion fails for infinities, so that all are divided.
namespace gristmill {

/// The integer types of quantized data.
enum class QuantType : std::uint8_t { u8, s8 };

/// The least and greatest integer of a type.
constexpr std::int32_t quant_min(QuantType type) { return type == QuantType::u8 ? 0 : -128; }
constexpr std::int32_t quant_max(QuantType type) { return type == QuantType::u8 ? 255 : 127; }

/// Scales and zero points: one of each, or `axis` and one for each index along it. A single zero point may
/// serve many scales.
struct QuantParams {
  std::span<const float> scale;
  std::span<const std::int32_t> zero_point;
  std::optional<std::size_t> axis;
};

// The conversions. Views have equal shapes, any strides, and do not overlap; the output has no element twice.
// Bytes hold integers of `type`. `threads` is as in parallel_for. Throws Error(argument) for a scale or zero
// point out of range and Error(shape) for shapes that do not fit, before anything is written.

void quantize(const ArrayView<const float>& x, const QuantParams& params, QuantType type,
              const ArrayView<std::uint8_t>& q, int threads);
void dequantize(const ArrayView<const std::uint8_t>& q, const QuantParams& params, QuantType type,
                const ArrayView<float>& x, int threads);
void requantize(const ArrayView<const std::int32_t>& acc, const QuantParams& params, QuantType type,
                const ArrayView<std::uint8_t>& q, int threads);
/// Zero points are not used and must be zero.
void rescale(const ArrayView<const std::int32_t>& acc, const QuantParams& params, const ArrayView<float>& y,
             int threads);

/// The least and greatest element of x, or of each channel along `axis` (spans of that many). NaN wherever an
/// element is NaN. Throws Error(argument) if there is no element to take them of.
void min_max(const ArrayView<const float>& x, std::optional<std::size_t> axis, std::span<float> low,
             std::span<float> high, int threads);

struct ScaleAndZeroPoint {
  float scale;
  std::int32_t zero_point;
};

/// The finest map of `type` that covers [low, high] and represents zero exactly.
///
/// Symmetric: scale = fl(max(|low|, |high|) / 127), zero point 0 for s8 and 128 for u8; integers stay within
/// 127 of it. Otherwise [low, high] is widened to hold zero, scale = fl((high - low) / 255) and zero_point =
/// rne(qmin - low / scale), computed in f64. A range of zeros alone gets scale 1 and zero point 0 (128 if
/// symmetric u8); scales are at least 2^-126, the least normal number. Throws Error(argument) unless
/// low <= high and both are finite.
ScaleAndZeroPoint choose_qparams(float low, float high, QuantType type, bool symmetric);

}  // namespace gristmill
