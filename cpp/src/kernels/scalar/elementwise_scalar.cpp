#include "elementwise_kernels.h"

namespace gristmill {
namespace {

constexpr float kRounder = 0x1.8p23f;  // adding it leaves a float no bits for a fraction

float round_half_even(float value) { return (value + kRounder) - kRounder; }

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// 2^n for n in [-126, 127].
float power_of_two(std::int32_t n) {
  const std::uint32_t bits = static_cast<std::uint32_t>(n + 127) << 23;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

/// e^x = 2^n e^r with n = rne(x / ln 2) and |r| <= ln 2 / 2. n ln 2 is subtracted in two parts, of which the
/// first is exact; 2^n is multiplied in two parts, of which neither leaves the normal range.
float elementwise_exp(float x) {
  x = x > 89.0f ? 89.0f : x;
  x = x < -104.0f ? -104.0f : x;
  const float shifted = x * 0x1.715476p0f + kRounder;
  const float n = shifted - kRounder;
  const auto power =
      static_cast<std::int32_t>(bits_of(shifted) - bits_of(kRounder)) % 256;  // the remainder tames NaN
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r;
  p = p + 1.0f;
  const std::int32_t half = power >> 1;
  return (p * power_of_two(half)) * power_of_two(power - half);
}

float hardsigmoid(float x) {
  float value = x * (1.0f / 6.0f) + 0.5f;
  value = value < 0.0f ? 0.0f : value;
  return value > 1.0f ? 1.0f : value;
}

float sigmoid(float x) { return 1.0f / (1.0f + elementwise_exp(-x)); }

void lookup(const std::uint8_t* table, const std::uint8_t* in, std::uint8_t* out, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) out[i] = table[in[i]];
}

std::uint8_t byte_sum(const AddBytesJob& job, std::uint8_t byte_a, std::uint8_t byte_b) {
  const auto a = static_cast<float>((byte_a ^ job.sign_a) - job.sign_a);
  const auto b = static_cast<float>((byte_b ^ job.sign_b) - job.sign_b);
  float value = __builtin_fmaf(a, job.ratio_a, __builtin_fmaf(b, job.ratio_b, job.fixed));
  value = value > job.low ? value : job.low;
  value = value < job.high ? value : job.high;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(round_half_even(value)));
}

void add_bytes(const AddBytesJob& job) {
  for (std::size_t row = 0; row < job.rows; ++row)
    for (std::size_t i = row * job.stride; i < row * job.stride + job.count; ++i)
      job.out[i] = byte_sum(job, job.a[i], job.b[i]);
}

void add_f32(const float* a, const float* b, float low, float high, float* out, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    float value = a[i] + b[i];
    value = value < low ? low : value;
    out[i] = value > high ? high : value;
  }
}

template <class Function>
void map(const float* in, float* out, std::size_t count, Function function) {
  for (std::size_t i = 0; i < count; ++i) out[i] = function(in[i]);
}

void curve_f32(Curve curve, float alpha, const float* in, float* out, std::size_t count) {
  switch (curve) {
    case Curve::leaky_relu:
      return map(in, out, count, [=](float x) { return x < 0.0f ? alpha * x : x; });
    case Curve::hardsigmoid:
      return map(in, out, count, hardsigmoid);
    case Curve::hardswish:
      return map(in, out, count, [](float x) { return x * hardsigmoid(x); });
    case Curve::sigmoid:
      return map(in, out, count, sigmoid);
    case Curve::silu:
      return map(in, out, count, [](float x) { return x * sigmoid(x); });
  }
}

}  // namespace

void install_elementwise_scalar(ElementwiseKernels& slots) {
  slots.lookup = lookup;
  slots.add_bytes = add_bytes;
  slots.add_f32 = add_f32;
  slots.curve_f32 = curve_f32;
}

}  // namespace gristmill
