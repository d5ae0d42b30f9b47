#include "resize_axis.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "gristmill/error.h"

namespace gristmill {
namespace {

[[noreturn]] void refuse(const char* where, const std::string& name) {
  throw Error(ErrorKind::argument, where, "unknown name '" + name + "'");
}

/// Where output `o` lies in x. In f32 and in this order, as ONNX Runtime does it, so that nearest neighbours
/// are the same.
float source_of(const ResizeParameters& p, std::size_t axis, const ResizeAxis& a, std::size_t o) {
  const auto at = static_cast<float>(o), in = static_cast<float>(a.in), out = static_cast<float>(a.out);
  const float scale = p.scales.empty() ? out / in : p.scales[axis];
  if (p.coordinates == "half_pixel") return (at + 0.5f) / scale - 0.5f;
  if (p.coordinates == "asymmetric") return at / scale;
  if (p.coordinates == "pytorch_half_pixel") return a.out > 1 ? (at + 0.5f) / scale - 0.5f : 0.0f;
  if (p.coordinates == "align_corners") return a.out > 1 ? at * (in - 1) / (out - 1) : 0.0f;
  if (p.coordinates == "half_pixel_symmetric") {
    const float offset = in / 2 * (1 - out / (scale * in));
    return offset + (at + 0.5f) / scale - 0.5f;
  }
  if (p.coordinates != "tf_crop_and_resize") refuse("coordinates", p.coordinates);
  const float start = p.roi_start[axis], end = p.roi_end[axis];
  if (a.out > 1) return start * (in - 1) + at * (end - start) * (in - 1) / (out - 1);
  return 0.5f * (start + end) * (in - 1);
}

float nearest_of(const ResizeParameters& p, float source) {
  if (p.rounding == "round_prefer_floor") return std::ceil(source - 0.5f);
  if (p.rounding == "round_prefer_ceil") return std::floor(source + 0.5f);
  if (p.rounding == "floor") return std::floor(source);
  if (p.rounding == "ceil") return std::ceil(source);
  refuse("rounding", p.rounding);
}

/// The weights of the four neighbours of a place `fraction` beyond the second.
std::array<float, 4> cubic_weights(float a, float fraction) {
  const float f = fraction, g = 1 - fraction;
  const auto near = [a](float x) { return ((a + 2) * x - (a + 3)) * x * x + 1; };
  const auto far = [a](float x) { return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a; };
  return {far(1 + f), near(f), near(g), far(1 + g)};
}

std::size_t clamped(float position, std::size_t extent) {
  return static_cast<std::size_t>(std::clamp(position, 0.0f, static_cast<float>(extent - 1)));
}

void add_cubic_taps(const ResizeParameters& p, ResizeAxis& axis, float source) {
  const float floor = std::floor(source);
  std::array<float, 4> weights = cubic_weights(p.cubic_a, source - floor);
  float total = 0;
  for (std::size_t t = 0; t < 4; ++t) {
    const float position = floor - 1 + static_cast<float>(t);
    if (p.exclude_outside && (position < 0 || position >= static_cast<float>(axis.in))) weights[t] = 0;
    total += weights[t];
    axis.index.push_back(clamped(position, axis.in));
  }
  for (float weight : weights) axis.weight.push_back(p.exclude_outside ? weight / total : weight);
}

void add_taps(const ResizeParameters& p, ResizeAxis& axis, float source) {
  const auto last = static_cast<float>(axis.in - 1);
  if (axis.taps == 4) return add_cubic_taps(p, axis, source);
  if (axis.taps == 1) {
    axis.index.push_back(clamped(nearest_of(p, source), axis.in));
    axis.weight.push_back(1);
    return;
  }
  const float place = std::clamp(source, 0.0f, last), floor = std::floor(place);
  axis.index.push_back(clamped(floor, axis.in));
  axis.index.push_back(clamped(floor + 1, axis.in));
  axis.weight.push_back(1 - (place - floor));
  axis.weight.push_back(place - floor);
}

}  // namespace

ResizeAxis make_resize_axis(const ResizeParameters& p, std::size_t axis, std::size_t in, std::size_t out) {
  const bool crops = p.coordinates == "tf_crop_and_resize";
  ResizeAxis made;
  made.in = in;
  made.out = out;
  made.taps = p.mode == "nearest" ? 1 : p.mode == "linear" ? 2 : p.mode == "cubic" ? 4 : 0;
  if (made.taps == 0) refuse("mode", p.mode);
  made.identity = in == out && !crops;
  if (made.identity) made.taps = 1;
  made.index.clear();
  made.weight.clear();
  made.outside.assign(out, 0);
  for (std::size_t o = 0; o < out; ++o) {
    const float source = made.identity ? static_cast<float>(o) : source_of(p, axis, made, o);
    if (!std::isfinite(source)) throw Error(ErrorKind::argument, "scales", "put outputs at no finite place");
    made.outside[o] = crops && (source < 0 || source > static_cast<float>(in - 1));
    if (made.identity) {
      made.index.push_back(o);
      made.weight.push_back(1);
    } else {
      add_taps(p, made, source);
    }
  }
  return made;
}

}  // namespace gristmill
