#pragma once

#include <cstddef>
#include <cstdint>

namespace gristmill {

/// The map between reals and bytes that one tensor or one channel uses.
///
/// Kernels see unsigned bytes only. A signed byte with zero point z is the unsigned byte with zero point
/// z + 128 whose top bit is flipped, so `zero_point` is always 0..255 and `flip` is 0x80 for s8, 0 for u8.
/// `steps` and `offset` serve exact division without a divider; gristmill/quantize.h derives them.
struct Affine {
  float scale;              ///< finite, > 0
  float steps;              ///< quantize_*: kFixedOne / scale
  float offset;             ///< quantize_*: kFixedOne * (zero_point + 0.5) + kTieMargin
  std::int32_t zero_point;  ///< 0..255
  std::uint8_t flip;        ///< 0x80 or 0
};

/// Maps that repeat: element i uses entry (first + i) % period of every array. For loads that run over the
/// end of a period, the arrays have kLaneOverrun more entries, which repeat the first ones.
struct AffineLanes {
  const float* scale;
  const float* steps;
  const float* offset;
  const std::int32_t* zero_point;
  std::size_t period;  ///< >= kLaneOverrun
  std::size_t first;   ///< < period
  std::uint8_t flip;
};

inline constexpr std::size_t kLaneOverrun = 64;

/// The fixed-point one of the exact-division identity, and its margin around a tie.
inline constexpr std::int32_t kFixedOne = 65536;
inline constexpr std::int32_t kTieMargin = 5;

/// Slots that convert contiguous runs of n elements between f32, s32 and bytes, and that reduce them.
///
/// `_run` uses one map for all elements, `_lanes` a repeating sequence of maps. `stream` says that input
/// and output pass between core and memory: a level may fetch ahead, and store around the caches.
struct QuantizeKernels {
  /// q = clamp(rne(x / scale) + zero_point, 0, 255) ^ flip, NaN as -inf.
  void (*quantize_run)(const float* x, std::uint8_t* q, std::size_t n, const Affine& map, bool stream);
  void (*quantize_lanes)(const float* x, std::uint8_t* q, std::size_t n, const AffineLanes& map, bool stream);

  /// x = f32((q ^ flip) - zero_point) * scale.
  void (*dequantize_run)(const std::uint8_t* q, float* x, std::size_t n, const Affine& map, bool stream);
  void (*dequantize_lanes)(const std::uint8_t* q, float* x, std::size_t n, const AffineLanes& map,
                           bool stream);

  /// q = clamp(rne(f32(acc) * scale) + zero_point, 0, 255) ^ flip.
  void (*requantize_run)(const std::int32_t* acc, std::uint8_t* q, std::size_t n, const Affine& map,
                         bool stream);
  void (*requantize_lanes)(const std::int32_t* acc, std::uint8_t* q, std::size_t n, const AffineLanes& map,
                           bool stream);

  /// y = f32(acc) * scale.
  void (*rescale_run)(const std::int32_t* acc, float* y, std::size_t n, const Affine& map, bool stream);
  void (*rescale_lanes)(const std::int32_t* acc, float* y, std::size_t n, const AffineLanes& map,
                        bool stream);

  /// Lets other threads see what calls with `stream` have stored; to be called by the thread that made them.
  void (*finish_streams)();

  /// Lowers *low to the least and raises *high to the greatest of x[0..n) and their own value; both become
  /// NaN, and stay it, if any of these is NaN. The sign of a zero is unspecified.
  void (*min_max_run)(const float* x, std::size_t n, float* low, float* high);
  /// The same element by element: x[i] into low[i] and high[i].
  void (*min_max_lanes)(const float* x, std::size_t n, float* low, float* high);
};

}  // namespace gristmill
