#pragma once

#include <cstddef>
#include <cstdint>

/// What happens to an accumulator before it is stored, as kernels see it: the last step of every weight
/// kernel.
///
/// int8 kernels compute, for accumulator acc of output channel c, in exactly this order (see
/// gristmill/quantize.h):
///
///     t = acc + bias[c]          s32, wrapping; zero points of the activations are folded into bias
///     v = f32(t) * scale[c]      one multiplication, not fused with anything
///
///     s32      t
///     f32      min(max(v, low), high)                        the bound where both are zeros
///     u8, s8   rne(min(max(v, low), high)) + zero_point
///
/// low and high hold both the saturation bounds (qmin - zero_point, qmax - zero_point) and a clamp activation
/// (relu, relu6), whichever is tighter.
///
/// f32 kernels add the products of an output in ascending k to one accumulator that starts at zero, whatever
/// the tile, so results do not depend on how work is split. Then v = acc + bias[c] and min(max(v, low),
/// high), which keeps NaN. The scalar level rounds each product; the others fuse it with the addition.
///
/// Activations by table, and the residual addition, are defined on stored values (as if a separate operator
/// followed, bit for bit) and run on the tile while it is in cache; dense and sparse f32 kernels add
/// residuals themselves.
namespace gristmill {

enum class OutputType : std::uint8_t { u8, s8, s32, f32 };

/// Which axis of the tile the output channels run along.
enum class ChannelAxis : std::uint8_t {
  rows,   ///< weights broadcast, output positions in lanes: convolution
  lanes,  ///< weights in lanes, activations broadcast: linear layers
};

struct EpilogueS8 {
  const std::int32_t* bias;  ///< [channels], never null
  const float* scale;        ///< [channels], null for s32
  float low, high;
  std::int32_t zero_point;
  OutputType type;
  /// Every scale is below 1, so that f32(t) * scale, rounded, fits s32. Then bytes may be clamped after they
  /// are rounded, and narrowed, which is monotonic: it comes to the same.
  bool small_scales = false;
};

struct EpilogueF32 {
  const float* bias;  ///< [channels], never null
  float low, high;    ///< -inf and inf where there is no clamp
  /// Null, or for dense and sparse kernels alone: laid out as the output from the call's first element on,
  /// and stored is min(max(v + residual, sum_low), sum_high).
  const float* residual = nullptr;
  float sum_low = 0, sum_high = 0;
};

}  // namespace gristmill
