#include "gristmill/epilogue.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "byte_sum.h"
#include "epilogue_kernels.h"
#include "gristmill/error.h"
#include "kernel_table.h"
#include "packed_weights.h"

namespace gristmill {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

[[noreturn]] void refuse(const char* where, std::string reason) {
  throw Error(ErrorKind::argument, where, std::move(reason));
}

std::int32_t least(DType type) { return type == DType::u8 ? 0 : -128; }
std::int32_t greatest(DType type) { return type == DType::u8 ? 255 : 127; }

OutputType kernel_type(DType type) {
  switch (type) {
    case DType::u8:
      return OutputType::u8;
    case DType::s8:
      return OutputType::s8;
    case DType::s32:
      return OutputType::s32;
    default:
      return OutputType::f32;
  }
}

bool is_curve(ActivationKind kind) { return kind >= ActivationKind::leaky_relu; }

Curve kernel_curve(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::hardsigmoid:
      return Curve::hardsigmoid;
    case ActivationKind::hardswish:
      return Curve::hardswish;
    case ActivationKind::sigmoid:
      return Curve::sigmoid;
    case ActivationKind::silu:
      return Curve::silu;
    default:
      return Curve::leaky_relu;
  }
}

double curve_value(const Activation& activation, double x) {
  const double hardsigmoid = std::clamp(x / 6.0 + 0.5, 0.0, 1.0);
  const double sigmoid = 1.0 / (1.0 + std::exp(-x));
  switch (activation.kind) {
    case ActivationKind::leaky_relu:
      return x < 0 ? double{activation.alpha} * x : x;
    case ActivationKind::hardsigmoid:
      return hardsigmoid;
    case ActivationKind::hardswish:
      return x * hardsigmoid;
    case ActivationKind::sigmoid:
      return sigmoid;
    case ActivationKind::silu:
      return x * sigmoid;
    default:
      return x;
  }
}

void require_quantization(const ScaleAndZeroPoint& q, DType type, const char* where) {
  if (!(q.scale > 0) || !std::isfinite(q.scale))
    refuse(where, "the scale is " + std::to_string(q.scale) + "; expected a finite number above 0");
  if (q.zero_point < least(type) || q.zero_point > greatest(type))
    refuse(where, "the zero point is " + std::to_string(q.zero_point) + "; expected " +
                      std::to_string(least(type)) + " to " + std::to_string(greatest(type)));
}

std::uint32_t magnitude(std::int32_t value) {
  return value < 0 ? 0u - static_cast<std::uint32_t>(value) : static_cast<std::uint32_t>(value);
}

struct Bounds {
  float low, high;
};

/// The real bounds of a clamp activation.
Bounds real_bounds(const Activation& activation, const char* where) {
  if (activation.kind == ActivationKind::relu) return {0, kInfinity};
  if (activation.kind != ActivationKind::clip) return {-kInfinity, kInfinity};
  if (!(activation.low <= activation.high)) refuse(where, "clip needs low <= high");
  return {activation.low, activation.high};
}

/// The bounds of a byte in steps from its zero point, narrowed by the activation's. Whole numbers, so that
/// the bounds of the stored integers and of what is rounded to them are the same.
Bounds byte_bounds(const Activation& activation, const ScaleAndZeroPoint& q, DType type, const char* where) {
  const auto low = static_cast<float>(least(type) - q.zero_point);
  const auto high = static_cast<float>(greatest(type) - q.zero_point);
  const Bounds real = real_bounds(activation, where);
  const auto quantized = [&](float bound) {
    if (bound == 0 || std::isinf(bound)) return bound;
    require_quantization(q, type, "output_scale");
    return std::nearbyint(bound / q.scale);
  };
  return {std::clamp(quantized(real.low), low, high), std::clamp(quantized(real.high), low, high)};
}

/// Copies `values`, or repeats the only one; none become zeros where that is allowed.
template <class T>
std::vector<T> one_each(std::span<const T> values, std::size_t channels, bool may_be_one, const char* where) {
  if (values.empty()) return std::vector<T>(channels);
  if (values.size() == 1 && may_be_one) return std::vector<T>(channels, values[0]);
  if (values.size() != channels)
    throw Error(ErrorKind::shape, where,
                "expected " + std::string(may_be_one ? "1 or " : "") + std::to_string(channels) +
                    " elements, one for each output channel, got " + std::to_string(values.size()));
  return {values.begin(), values.end()};
}

}  // namespace

OutputStage::OutputStage(const Epilogue& epilogue, std::size_t channels, bool f32_layer)
    : f32_layer_(f32_layer),
      output_(epilogue.output),
      channels_(channels),
      zero_point_(epilogue.zero_point),
      low_(-kInfinity),
      high_(kInfinity),
      activation_(epilogue.activation) {
  if (output_ > DType::f32) refuse("output", std::string("a layer does not yield ") + dtype_name(output_));
  if (f32_layer && output_ != DType::f32) refuse("output", "a float32 layer has float32 output");
  if (!f32_layer && !epilogue.bias_f32.empty())
    throw Error(ErrorKind::dtype, "bias", "expected int32 for an int8 layer, got float32");
  if (f32_layer && !epilogue.bias.empty())
    throw Error(ErrorKind::dtype, "bias", "expected float32 for a float32 layer, got int32");
  if (f32_layer) {
    if (!epilogue.scale.empty()) refuse("scale", "a float32 layer has no scale");
    bias_f32_ = one_each(epilogue.bias_f32, channels, false, "bias");
  } else {
    bias_ = one_each(epilogue.bias, channels, false, "bias");
    for (std::int32_t b : bias_) greatest_bias_ = std::max(greatest_bias_, magnitude(b));
    if (output_ == DType::s32 && !epilogue.scale.empty()) refuse("scale", "int32 output has no scale");
    if (output_ != DType::s32) {
      if (epilogue.scale.empty() && channels != 0) refuse("scale", "needed unless the output is int32");
      scale_ = one_each(epilogue.scale, channels, true, "scale");
      for (float s : scale_)
        if (!std::isfinite(s)) refuse("scale", "expected finite numbers, got " + std::to_string(s));
      small_scales_ = std::ranges::all_of(scale_, [](float s) { return std::fabs(s) < 1.0f; });
    }
  }
  if (!is_byte(output_) && zero_point_ != 0) refuse("zero_point", "only byte outputs have one");
  if (is_byte(output_)) require_quantization({1, zero_point_}, output_, "zero_point");
  if (output_ == DType::s32 && (activation_.kind != ActivationKind::none || epilogue.residual))
    refuse("output", "int32 output takes neither an activation nor a residual");
  set_clamp(activation_, epilogue);
  if (is_curve(activation_.kind)) set_curve(epilogue);
  if (epilogue.residual) set_residual(epilogue);
}

void OutputStage::set_clamp(const Activation& activation, const Epilogue& epilogue) {
  const Bounds bounds =
      is_byte(output_) ? byte_bounds(activation, {epilogue.output_scale, zero_point_}, output_, "activation")
                       : real_bounds(activation, "activation");
  low_ = bounds.low;
  high_ = bounds.high;
}

void OutputStage::set_curve(const Epilogue& epilogue) {
  curve_ = true;
  if (activation_.kind == ActivationKind::leaky_relu && !std::isfinite(activation_.alpha))
    refuse("activation", "alpha is not finite");
  if (!is_byte(output_)) return;
  const ScaleAndZeroPoint from{epilogue.output_scale, zero_point_};
  require_quantization(from, output_, "output_scale");
  const ScaleAndZeroPoint to = epilogue.activation_output.value_or(from);
  require_quantization(to, output_, "activation_output");
  for (std::int32_t q = least(output_); q <= greatest(output_); ++q) {
    const double real = curve_value(activation_, (q - from.zero_point) * double{from.scale});
    const double steps = std::nearbyint(real / double{to.scale}) + to.zero_point;
    const double bounded = std::clamp<double>(steps, least(output_), greatest(output_));
    table_[static_cast<std::uint8_t>(q)] = static_cast<std::uint8_t>(static_cast<std::int32_t>(bounded));
  }
}

void OutputStage::set_residual(const Epilogue& epilogue) {
  const ResidualAdd& add = *epilogue.residual;
  if (is_curve(add.activation.kind)) refuse("residual", "its activation is none, relu or clip");
  if (is_byte(output_) != is_byte(add.type) || add.type == DType::s32)
    throw Error(ErrorKind::dtype, "residual",
                std::string("a ") + dtype_name(output_) + " output cannot take a residual of " +
                    dtype_name(add.type));
  if (!is_byte(output_)) {
    const Bounds bounds = real_bounds(add.activation, "residual");
    residual_ = {add.type, false, 0, 0, 0, bounds.low, bounds.high};
    return;
  }
  ByteMap own{output_, {epilogue.output_scale, zero_point_}};
  if (curve_ && epilogue.activation_output) own.map = *epilogue.activation_output;
  require_quantization(own.map, output_, "output_scale");
  require_quantization(add.quantization, add.type, "residual");
  require_quantization(add.sum, output_, "residual sum");
  const ByteMap other{add.type, add.quantization};
  const AddBytesJob sum = byte_sum(add.first ? other : own, add.first ? own : other, {output_, add.sum});
  const Bounds bounds = byte_bounds(add.activation, add.sum, output_, "residual");
  const auto zero = static_cast<float>(add.sum.zero_point);
  residual_ = {add.type,  add.first,         sum.ratio_a,       sum.ratio_b,
               sum.fixed, bounds.low + zero, bounds.high + zero};
}

void OutputStage::fold_bias(const WeightSums& weights, std::int32_t kernel_zero_point,
                            std::span<std::int32_t> folded) const {
  // No magnitude exceeds (2^31 - 1) / 255, so that 32 bits hold the greatest accumulator there could be; what
  // int32 cannot hold has the top bit.
  const auto is_too_great = [](std::uint32_t bias, std::uint32_t magnitudes) {
    return (bias + 255u * magnitudes) >> 31 != 0;
  };
  for (std::size_t c = 0; c < channels_ && is_too_great(greatest_bias_, weights.greatest_magnitude); ++c) {
    if (is_too_great(magnitude(bias_[c]), weights.magnitudes[c]))
      throw Error(ErrorKind::limit, "bias",
                  "channel " + std::to_string(c) + " could overflow int32: its bias is " +
                      std::to_string(bias_[c]) + " and its weights' magnitudes add up to " +
                      std::to_string(weights.magnitudes[c]) +
                      ", where |bias| + 255 * magnitudes may be 2^31 - 1");
  }
  if (kernel_zero_point == 0) {
    std::copy_n(bias_.data(), channels_, folded.data());
    return;
  }
  for (std::size_t c = 0; c < channels_; ++c) folded[c] = bias_[c] - kernel_zero_point * weights.sums[c];
}

EpilogueS8 OutputStage::kernel_s8(std::span<const std::int32_t> folded, std::size_t first) const {
  return {folded.data() + first,
          scale_.empty() ? nullptr : scale_.data() + first,
          low_,
          high_,
          zero_point_,
          kernel_type(output_),
          small_scales_};
}

EpilogueF32 OutputStage::kernel_f32(std::size_t first, const float* residual) const {
  const float* bias = bias_f32_.data() + first;
  if (residual == nullptr) return {bias, low_, high_};
  return {bias, low_, high_, residual, residual_->low, residual_->high};
}

void OutputStage::finish(const StoredTile& stored, const KernelTable& kernels) const {
  StoredTile tile = stored;
  if (tile.lanes == tile.stride) {
    tile.lanes *= tile.rows;
    tile.rows = 1;
  }
  if (curve_) apply_curve(tile, kernels);
  if (residual_ && is_byte(output_))
    add_bytes(tile, kernels);
  else if (residual_)
    add_f32(tile, kernels);
}

void OutputStage::apply_curve(const StoredTile& tile, const KernelTable& kernels) const {
  for (std::size_t row = 0; row < tile.rows; ++row) {
    const std::size_t at = tile.offset + row * tile.stride;
    if (is_byte(output_)) {
      auto* bytes = static_cast<std::uint8_t*>(tile.out) + at;
      kernels.elementwise.lookup(table_.data(), bytes, bytes, tile.lanes);
    } else {
      auto* values = static_cast<float*>(tile.out) + at;
      kernels.elementwise.curve_f32(kernel_curve(activation_.kind), activation_.alpha, values, values,
                                    tile.lanes);
    }
  }
}

void OutputStage::add_f32(const StoredTile& tile, const KernelTable& kernels) const {
  for (std::size_t row = 0; row < tile.rows; ++row) {
    const std::size_t at = tile.offset + row * tile.stride;
    auto* values = static_cast<float*>(tile.out) + at;
    kernels.elementwise.add_f32(values, static_cast<const float*>(tile.residual) + at, residual_->low,
                                residual_->high, values, tile.lanes);
  }
}

void OutputStage::add_bytes(const StoredTile& tile, const KernelTable& kernels) const {
  const Residual& r = *residual_;
  auto* bytes = static_cast<std::uint8_t*>(tile.out) + tile.offset;
  AddBytesJob job{bytes,
                  static_cast<const std::uint8_t*>(tile.residual) + tile.offset,
                  bytes,
                  tile.rows,
                  tile.lanes,
                  tile.stride,
                  sign_of(output_),
                  sign_of(r.type),
                  sign_of(output_),
                  r.ratio_a,
                  r.ratio_b,
                  r.fixed,
                  r.low,
                  r.high};
  if (r.first) {
    std::swap(job.a, job.b);
    std::swap(job.sign_a, job.sign_b);
  }
  kernels.elementwise.add_bytes(job);
}

}  // namespace gristmill
