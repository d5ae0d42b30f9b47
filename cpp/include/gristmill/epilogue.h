#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "gristmill/dtype.h"
#include "gristmill/quantize.h"

/// Epilogues: what becomes of the accumulators of a convolution or linear layer.
///
/// An int8 layer yields, for output channel c and accumulator acc = sum (x - x_zero_point) * w,
///
///     t = acc + bias[c]                                  s32 stops here
///     v = fl(f32(t) * scale[c])                          f32 stops here, clamped
///     q = clamp(rne(v)) + zero_point                     u8 and s8, in [qmin, qmax]
///
/// and an f32 layer v = acc + bias[c]. Two further steps may follow, each exactly what a separate operator
/// would make of the stored output, bit for bit:
///
///     activation    relu and clip narrow the clamp, which is the same as clipping the stored integers. The
///                   curves (leaky relu, hardswish, ...) map integers by a table of 256 entries: dequantize
///                   with output_scale and zero_point, apply in f64, quantize with activation_output. On f32
///                   they are computed (elementwise_kernels.h says how).
///     residual      another tensor of the output's shape is added, as byte_sum.h says, with a clamp of the
///                   sum. On f32, add and clamp.
namespace gristmill {

enum class ActivationKind : std::uint8_t {
  none,
  relu,
  clip,
  leaky_relu,
  hardsigmoid,
  hardswish,
  sigmoid,
  silu
};

struct Activation {
  ActivationKind kind = ActivationKind::none;
  float low = 0, high = 0;  ///< clip: real bounds, -inf and inf allowed, low <= high
  float alpha = 0;          ///< leaky_relu: the slope of negative numbers
};

struct ResidualAdd {
  DType type = DType::f32;               ///< u8 or s8 after a byte output, f32 after an f32 output
  ScaleAndZeroPoint quantization{1, 0};  ///< of the tensor that is added
  ScaleAndZeroPoint sum{1, 0};           ///< of the result, whose type is the epilogue's output
  Activation activation{};               ///< none, relu or clip, of the sum
  bool first = false;                    ///< whether it is the first operand of a sum of bytes
};

/// An epilogue as the user states it.
struct Epilogue {
  DType output = DType::s32;
  std::span<const std::int32_t> bias;  ///< int8 layers; one for each channel, or empty for none
  std::span<const float> bias_f32;     ///< f32 layers, likewise
  std::span<const float> scale;        ///< int8 layers unless the output is s32: one, or one for each channel
  std::int32_t zero_point = 0;         ///< of u8 and s8 outputs
  float output_scale = 0;  ///< real size of one step of a byte output, where something asks for it
  Activation activation{};
  std::optional<ScaleAndZeroPoint> activation_output;  ///< of a curve's result; the output's if absent
  std::optional<ResidualAdd> residual;
};

struct EpilogueS8;
struct EpilogueF32;
struct KernelTable;
struct WeightSums;

/// A part of an output that a kernel has just stored.
struct StoredTile {
  void* out;                ///< the whole output
  const void* residual;     ///< of the output's shape
  std::size_t offset;       ///< of the tile's first element
  std::size_t rows, lanes;  ///< `lanes` elements are consecutive
  std::size_t stride;       ///< elements from one row of the tile to the next
};

/// An epilogue checked and prepared for a layer: immutable, and shared by any number of calls.
class OutputStage {
 public:
  /// Throws Error naming the field if `epilogue` makes no sense for a layer of that many channels.
  OutputStage(const Epilogue& epilogue, std::size_t channels, bool f32_layer);

  bool f32_layer() const { return f32_layer_; }
  DType output() const { return output_; }
  std::size_t channels() const { return channels_; }
  bool has_residual() const { return residual_.has_value(); }
  DType residual_type() const { return residual_->type; }

  /// Writes the bias of each channel with the activations' zero point folded in: bias - kernel_zero_point *
  /// weight sum. Throws Error(limit) if an accumulator of that channel could overflow.
  void fold_bias(const WeightSums& weights, std::int32_t kernel_zero_point,
                 std::span<std::int32_t> folded) const;

  /// What kernels need, for the channels from `first` on; `folded` is what fold_bias wrote.
  EpilogueS8 kernel_s8(std::span<const std::int32_t> folded, std::size_t first) const;
  /// The same of an f32 layer. `residual` is for kernels that add it, if adds_in_kernel().
  EpilogueF32 kernel_f32(std::size_t first, const float* residual = nullptr) const;

  /// Whether f32 kernels that add residuals leave finish() nothing to do.
  bool adds_in_kernel() const { return f32_layer_ && residual_.has_value() && !curve_; }
  /// Whether finish() has anything to do.
  bool has_passes() const { return curve_ || residual_.has_value(); }
  /// Runs the passes that follow the store.
  void finish(const StoredTile& tile, const KernelTable& kernels) const;

 private:
  void set_clamp(const Activation& activation, const Epilogue& epilogue);
  void set_curve(const Epilogue& epilogue);
  void set_residual(const Epilogue& epilogue);
  void apply_curve(const StoredTile& tile, const KernelTable& kernels) const;
  void add_f32(const StoredTile& tile, const KernelTable& kernels) const;
  void add_bytes(const StoredTile& tile, const KernelTable& kernels) const;

  struct Residual {
    DType type;
    bool first;
    float ratio_a, ratio_b, fixed;  ///< of a sum of bytes, as in byte_sum.h
    float low, high;
  };

  bool f32_layer_;
  DType output_;
  std::size_t channels_;
  std::vector<std::int32_t> bias_;
  std::uint32_t greatest_bias_ = 0;  ///< magnitude
  std::vector<float> bias_f32_, scale_;
  bool small_scales_ = false;
  std::int32_t zero_point_;
  float low_, high_;
  bool curve_ = false;
  Activation activation_;
  std::array<std::uint8_t, 256> table_{};
  std::optional<Residual> residual_;
};

}  // namespace gristmill
