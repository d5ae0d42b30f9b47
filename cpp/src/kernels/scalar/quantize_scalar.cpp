#include "quantize_kernels.h"

namespace gristmill {
namespace {

// The map of element i: the same for all elements, or from a repeating sequence.
struct Same {
  const Affine& map;
  float scale(std::size_t) const { return map.scale; }
  std::int32_t zero_point(std::size_t) const { return map.zero_point; }
  std::uint8_t flip() const { return map.flip; }
};

struct Each {
  const AffineLanes& map;
  std::size_t lane(std::size_t i) const { return (map.first + i) % map.period; }
  float scale(std::size_t i) const { return map.scale[lane(i)]; }
  std::int32_t zero_point(std::size_t i) const { return map.zero_point[lane(i)]; }
  std::uint8_t flip() const { return map.flip; }
};

/// rne(v) + zero_point, saturated; NaN compares false and falls to the lower bound.
std::uint8_t to_byte(float v, std::int32_t zero_point) {
  const float low = static_cast<float>(-zero_point), high = static_cast<float>(255 - zero_point);
  v = v > low ? v : low;
  v = v < high ? v : high;
  // For |v| < 2^22 the spacing of floats at v + 1.5 * 2^23 is one: the addition rounds to the nearest even.
  constexpr float kRound = 12582912.0f;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>((v + kRound) - kRound) + zero_point);
}

template <class Map>
void quantize(const float* x, std::uint8_t* q, std::size_t n, Map map) {
  for (std::size_t i = 0; i < n; ++i)
    q[i] = static_cast<std::uint8_t>(to_byte(x[i] / map.scale(i), map.zero_point(i)) ^ map.flip());
}

template <class Map>
void dequantize(const std::uint8_t* q, float* x, std::size_t n, Map map) {
  for (std::size_t i = 0; i < n; ++i)
    x[i] = static_cast<float>((q[i] ^ map.flip()) - map.zero_point(i)) * map.scale(i);
}

template <class Map>
void requantize(const std::int32_t* acc, std::uint8_t* q, std::size_t n, Map map) {
  for (std::size_t i = 0; i < n; ++i) {
    const float v = static_cast<float>(acc[i]) * map.scale(i);
    q[i] = static_cast<std::uint8_t>(to_byte(v, map.zero_point(i)) ^ map.flip());
  }
}

template <class Map>
void rescale(const std::int32_t* acc, float* y, std::size_t n, Map map) {
  for (std::size_t i = 0; i < n; ++i) y[i] = static_cast<float>(acc[i]) * map.scale(i);
}

/// The new extreme: x if it is beyond or NaN, else the old one, which stays if NaN.
float lower(float old, float x) { return x < old || x != x ? x : old; }
float upper(float old, float x) { return x > old || x != x ? x : old; }

void min_max_run(const float* x, std::size_t n, float* low, float* high) {
  float least = *low, greatest = *high;
  for (std::size_t i = 0; i < n; ++i) {
    least = lower(least, x[i]);
    greatest = upper(greatest, x[i]);
  }
  *low = least;
  *high = greatest;
}

void min_max_lanes(const float* x, std::size_t n, float* low, float* high) {
  for (std::size_t i = 0; i < n; ++i) {
    low[i] = lower(low[i], x[i]);
    high[i] = upper(high[i], x[i]);
  }
}

// A slot from a template: the map decides between one and many.
template <auto kernel, class In, class Out>
void run(const In* in, Out* out, std::size_t n, const Affine& map, bool) {
  kernel(in, out, n, Same{map});
}

template <auto kernel, class In, class Out>
void lanes(const In* in, Out* out, std::size_t n, const AffineLanes& map, bool) {
  kernel(in, out, n, Each{map});
}

}  // namespace

void install_quantize_scalar(QuantizeKernels& slots) {
  slots.quantize_run = run<quantize<Same>>;
  slots.quantize_lanes = lanes<quantize<Each>>;
  slots.dequantize_run = run<dequantize<Same>>;
  slots.dequantize_lanes = lanes<dequantize<Each>>;
  slots.requantize_run = run<requantize<Same>>;
  slots.requantize_lanes = lanes<requantize<Each>>;
  slots.rescale_run = run<rescale<Same>>;
  slots.rescale_lanes = lanes<rescale<Each>>;
  slots.finish_streams = [] {};
  slots.min_max_run = min_max_run;
  slots.min_max_lanes = min_max_lanes;
}

}  // namespace gristmill
