#include "affine_table.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <limits>
#include <string>
#include <utility>

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

// There may be as many channels as elements in a row of a matrix: these loops are of a form that compilers
// turn into vector code.

constexpr std::uint32_t kInfinity = 0x7F800000;

/// Not 0 unless the scale is finite and > 0, as its bits tell.
std::uint32_t is_no_scale(float scale) {
  return std::bit_cast<std::uint32_t>(scale) - 1 < kInfinity - 1 ? 0 : 1;
}

bool are_scales(std::span<const float> scale) {
  std::uint32_t refused = 0;
  for (float one : scale) refused |= is_no_scale(one);
  return refused == 0;
}

/// Counts zero points from the least integer of the type; says whether all are of the type.
bool bias_zero_points(std::span<const std::int32_t> zero_point, QuantType type, std::int32_t* biased) {
  std::uint32_t bits = 0;
  for (std::size_t c = 0; c < zero_point.size(); ++c) {
    const auto difference =
        static_cast<std::uint32_t>(zero_point[c]) - static_cast<std::uint32_t>(quant_min(type));
    biased[c] = static_cast<std::int32_t>(difference);
    bits |= difference;
  }
  return bits <= 255;
}

/// Repeats each of the values `inner` times, and the `period` of these until there are `count`. With an
/// `inner` of 1 the values may be in place.
template <class T>
void repeat(const T* values, std::size_t inner, std::size_t period, T* to, std::size_t count) {
  if (inner > 1)
    for (std::size_t lane = 0; lane < period; lane += inner) std::fill_n(to + lane, inner, *values++);
  else if (values != to)
    std::copy_n(values, period, to);
  for (std::size_t have = period; have < count; have *= 2)
    std::copy_n(to, std::min(have, count - have), to + have);
}

}  // namespace

Affine division_map(float scale, std::int32_t zero_point) {
  const float steps = static_cast<float>(kFixedOne) / scale;
  if (std::bit_cast<std::uint32_t>(steps) == kInfinity) return {scale, 0, kTieMargin, zero_point, 0};
  return {scale, steps, static_cast<float>(kFixedOne * zero_point + kFixedOne / 2 + kTieMargin), zero_point,
          0};
}

AffineTable::Columns AffineTable::reserve(AlignedBuffer& buffer, std::size_t count) {
  constexpr std::size_t kLine = AlignedBuffer::kAlignment / sizeof(float);
  const std::size_t column = (count + kLine - 1) / kLine * kLine;
  auto* const start = static_cast<float*>(buffer.reserve(4 * column * sizeof(float)));
  return {start, start + column, start + 2 * column, reinterpret_cast<std::int32_t*>(start + 3 * column)};
}

AffineTable::AffineTable(const QuantParams& params, QuantType type, std::size_t channels)
    : channels_(channels), flip_(type == QuantType::s8 ? 0x80 : 0) {
  check_count("scale", params.scale.size(), channels, params.axis.has_value());
  const bool shared_zero_point = params.zero_point.size() == 1;
  if (!shared_zero_point)
    check_count("zero_point", params.zero_point.size(), channels, params.axis.has_value());
  columns_ =
      reserve(buffer_, std::max<std::size_t>(channels, 1) + (channels < kLaneOverrun ? 0 : kLaneOverrun));
  std::copy_n(params.scale.data(), channels, columns_.scale);
  const bool fits = bias_zero_points(params.zero_point, type, columns_.zero_point);
  if (shared_zero_point) std::fill_n(columns_.zero_point, channels, columns_.zero_point[0]);
  if (are_scales({columns_.scale, channels}) && fits) return;
  for (std::size_t c = 0; c < channels; ++c) {
    if (is_no_scale(columns_.scale[c]) != 0) refuse_scale(columns_.scale[c], c, channels);
    const std::int32_t zero_point = params.zero_point[shared_zero_point ? 0 : c];
    if (zero_point < quant_min(type) || zero_point > quant_max(type))
      refuse_zero_point(zero_point, type, c, channels);
  }
}

void AffineTable::prepare_division() {
  divides_ = true;
  const auto [scale, steps, offset, zero_point] = columns_;
  for (std::size_t c = 0; c < channels_; ++c) steps[c] = static_cast<float>(kFixedOne) / scale[c];
  for (std::size_t c = 0; c < channels_; ++c) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(steps[c]);
    const std::uint32_t kept = static_cast<std::uint32_t>(bits == kInfinity) - 1;  // all bits or none
    const std::int32_t zero = kFixedOne * zero_point[c] + kFixedOne / 2;
    steps[c] = std::bit_cast<float>(bits & kept);
    offset[c] = static_cast<float>((zero & static_cast<std::int32_t>(kept)) + kTieMargin);
  }
}

void AffineTable::expand(std::size_t inner) {
  const std::size_t least = channels_ * inner;
  period_ = least * ((kLaneOverrun - 1) / least + 1);
  const bool in_place = period_ == channels_;
  AlignedBuffer buffer;
  const Columns to = in_place ? columns_ : reserve(buffer, period_ + kLaneOverrun);
  const auto lay_out = [&](const auto* values, auto* lanes) {
    repeat(values, inner, least, lanes, period_ + kLaneOverrun);
  };
  lay_out(columns_.scale, to.scale);
  lay_out(columns_.zero_point, to.zero_point);
  if (divides_) {
    lay_out(columns_.steps, to.steps);
    lay_out(columns_.offset, to.offset);
  }
  if (in_place) return;
  buffer_ = std::move(buffer);
  columns_ = to;
}

AffineLanes AffineTable::lanes(std::size_t first) const {
  return {columns_.scale,  columns_.steps, columns_.offset, columns_.zero_point, period_,
          first % period_, flip_};
}

}  // namespace gristmill
