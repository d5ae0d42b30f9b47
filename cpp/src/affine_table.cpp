#include "affine_table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

#include "gristmill/error.h"

namespace gristmill {
namespace {

void check_count(const char* name, std::size_t count, std::size_t channels, bool per_channel) {
  if (count == channels) return;
  throw Error(ErrorKind::shape, name,
              per_channel ? "expected " + std::to_string(channels) + " values, one per channel, got " +
                                std::to_string(count)
                          : "expected one value, got " + std::to_string(count));
}

std::string format_float(float value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", static_cast<double>(value));
  return text;
}

std::string at_channel(std::size_t channel, std::size_t channels) {
  return channels == 1 ? "" : " at channel " + std::to_string(channel);
}

[[noreturn, gnu::cold]] void refuse_scale(float scale, std::size_t channel, std::size_t channels) {
  throw Error(ErrorKind::argument, "scale",
              "must be finite and greater than 0 as float32, got " + format_float(scale) +
                  at_channel(channel, channels));
}

[[noreturn, gnu::cold]] void refuse_zero_point(std::int32_t zero_point, QuantType type, std::size_t channel,
                                               std::size_t channels) {
  throw Error(ErrorKind::argument, "zero_point",
              "must be in " + std::to_string(quant_min(type)) + ".." + std::to_string(quant_max(type)) +
                  ", got " + std::to_string(zero_point) + at_channel(channel, channels));
}

Affine make_affine(float scale, std::int32_t zero_point, QuantType type) {
  const std::int32_t biased = zero_point - quant_min(type);
  const std::uint8_t flip = type == QuantType::s8 ? 0x80 : 0;
  const float steps = static_cast<float>(kFixedOne) / scale;
  if (std::isinf(steps))
    return {scale, std::numeric_limits<float>::min(), kFixedOne - kTieMargin, biased, flip};
  return {scale, steps, static_cast<float>(kFixedOne * biased + kFixedOne / 2 - kTieMargin), biased, flip};
}

}  // namespace

AffineTable::AffineTable(const QuantParams& params, QuantType type, std::size_t channels) {
  check_count("scale", params.scale.size(), channels, params.axis.has_value());
  const bool shared_zero_point = params.zero_point.size() == 1;
  if (!shared_zero_point)
    check_count("zero_point", params.zero_point.size(), channels, params.axis.has_value());
  channels_.resize(channels);
  for (std::size_t c = 0; c < channels; ++c) {
    const float scale = params.scale[c];
    const std::int32_t zero_point = params.zero_point[shared_zero_point ? 0 : c];
    if (!(std::isfinite(scale) && scale > 0)) refuse_scale(scale, c, channels);
    if (zero_point < quant_min(type) || zero_point > quant_max(type))
      refuse_zero_point(zero_point, type, c, channels);
    channels_[c] = make_affine(scale, zero_point, type);
  }
}

void AffineTable::expand(std::size_t inner) {
  const std::size_t least = channels_.size() * inner;
  period_ = least * ((kLaneOverrun - 1) / least + 1);
  const std::size_t count = period_ + kLaneOverrun;
  for (AlignedBuffer* lanes : {&scale_, &steps_, &offset_, &zero_point_})
    lanes->reserve(count * sizeof(float));
  std::size_t lane = 0;
  for (std::size_t c = 0; lane < count; c = c + 1 < channels_.size() ? c + 1 : 0)
    for (const std::size_t end = std::min(count, lane + inner); lane < end; ++lane) {
      scale_.data<float>()[lane] = channels_[c].scale;
      steps_.data<float>()[lane] = channels_[c].steps;
      offset_.data<float>()[lane] = channels_[c].offset;
      zero_point_.data<std::int32_t>()[lane] = channels_[c].zero_point;
    }
}

AffineLanes AffineTable::lanes(std::size_t first) const {
  return {scale_.data<float>(),
          steps_.data<float>(),
          offset_.data<float>(),
          zero_point_.data<std::int32_t>(),
          period_,
          first % period_,
          channels_[0].flip};
}

}  // namespace gristmill
