#include <arm_neon.h>

#include "elementwise_kernels.h"

namespace gristmill {
namespace {

/// Applies `four` to whole vectors and to a tail, which is moved through a buffer.
template <class Four>
void for_each_four(const float* in, float* out, std::size_t count, Four four) {
  std::size_t i = 0;
  for (; i + 4 <= count; i += 4) vst1q_f32(out + i, four(vld1q_f32(in + i)));
  if (i == count) return;
  float tail[4] = {};
  for (std::size_t j = 0; i + j < count; ++j) tail[j] = in[i + j];
  vst1q_f32(tail, four(vld1q_f32(tail)));
  for (std::size_t j = 0; i + j < count; ++j) out[i + j] = tail[j];
}

float32x4_t times_plus(float32x4_t p, float32x4_t r, float constant) {
  return vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(constant));
}

float32x4_t power_of_two(int32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}

float32x4_t elementwise_exp(float32x4_t x) {
  const float32x4_t rounder = vdupq_n_f32(0x1.8p23f);
  x = vmaxq_f32(vminq_f32(x, vdupq_n_f32(89.0f)), vdupq_n_f32(-104.0f));
  const float32x4_t shifted = vaddq_f32(vmulq_n_f32(x, 0x1.715476p0f), rounder);
  const float32x4_t n = vsubq_f32(shifted, rounder);
  const int32x4_t power = vsubq_s32(vreinterpretq_s32_f32(shifted), vreinterpretq_s32_f32(rounder));
  float32x4_t r = vsubq_f32(x, vmulq_n_f32(n, 0.693359375f));
  r = vaddq_f32(r, vmulq_n_f32(n, 2.12194440e-4f));
  float32x4_t p = vdupq_n_f32(1.9875691500e-4f);
  p = times_plus(p, r, 1.3981999507e-3f);
  p = times_plus(p, r, 8.3334519073e-3f);
  p = times_plus(p, r, 4.1665795894e-2f);
  p = times_plus(p, r, 1.6666665459e-1f);
  p = times_plus(p, r, 5.0000001201e-1f);
  p = vaddq_f32(vmulq_f32(p, vmulq_f32(r, r)), r);
  p = vaddq_f32(p, vdupq_n_f32(1.0f));
  const int32x4_t half = vshrq_n_s32(power, 1);
  return vmulq_f32(vmulq_f32(p, power_of_two(half)), power_of_two(vsubq_s32(power, half)));
}

float32x4_t hardsigmoid(float32x4_t x) {
  const float32x4_t value = times_plus(x, vdupq_n_f32(1.0f / 6.0f), 0.5f);
  return vminq_f32(vmaxq_f32(value, vdupq_n_f32(0.0f)), vdupq_n_f32(1.0f));
}

float32x4_t sigmoid(float32x4_t x) {
  const float32x4_t one = vdupq_n_f32(1.0f);
  return vdivq_f32(one, vaddq_f32(one, elementwise_exp(vnegq_f32(x))));
}

void curve_f32(Curve curve, float alpha, const float* in, float* out, std::size_t count) {
  switch (curve) {
    case Curve::leaky_relu:
      return for_each_four(in, out, count,
                           [=](float32x4_t x) { return vbslq_f32(vcltzq_f32(x), vmulq_n_f32(x, alpha), x); });
    case Curve::hardsigmoid:
      return for_each_four(in, out, count, [](float32x4_t x) { return hardsigmoid(x); });
    case Curve::hardswish:
      return for_each_four(in, out, count, [](float32x4_t x) { return vmulq_f32(x, hardsigmoid(x)); });
    case Curve::sigmoid:
      return for_each_four(in, out, count, [](float32x4_t x) { return sigmoid(x); });
    case Curve::silu:
      return for_each_four(in, out, count, [](float32x4_t x) { return vmulq_f32(x, sigmoid(x)); });
  }
}

/// Four tables of 64 entries in 16 registers: tbl yields 0 for an index beyond its table, and tbx leaves what
/// the tables before have found.
void lookup(const std::uint8_t* table, const std::uint8_t* in, std::uint8_t* out, std::size_t count) {
  std::size_t i = 0;
  if (count >= 16) {
    const uint8x16x4_t first = vld1q_u8_x4(table), second = vld1q_u8_x4(table + 64);
    const uint8x16x4_t third = vld1q_u8_x4(table + 128), fourth = vld1q_u8_x4(table + 192);
    const uint8x16_t step = vdupq_n_u8(64);
    for (; i + 16 <= count; i += 16) {
      uint8x16_t index = vld1q_u8(in + i);
      uint8x16_t found = vqtbl4q_u8(first, index);
      index = vsubq_u8(index, step);
      found = vqtbx4q_u8(found, second, index);
      index = vsubq_u8(index, step);
      found = vqtbx4q_u8(found, third, index);
      index = vsubq_u8(index, step);
      vst1q_u8(out + i, vqtbx4q_u8(found, fourth, index));
    }
  }
  for (; i < count; ++i) out[i] = table[in[i]];
}

/// Eight bytes as floats: u8, or s8 if the sign is 0x80.
float32x4x2_t load_bytes(const std::uint8_t* bytes, uint8x8_t sign) {
  const int16x8_t q = vreinterpretq_s16_u16(vsubl_u8(veor_u8(vld1_u8(bytes), sign), sign));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(q))), vcvtq_f32_s32(vmovl_high_s16(q))}};
}

void add_bytes(const AddBytesJob& job) {
  const uint8x8_t sign_a = vdup_n_u8(job.sign_a), sign_b = vdup_n_u8(job.sign_b);
  const float32x4_t ratio_a = vdupq_n_f32(job.ratio_a), ratio_b = vdupq_n_f32(job.ratio_b);
  const float32x4_t fixed = vdupq_n_f32(job.fixed);
  const float32x4_t low = vdupq_n_f32(job.low), high = vdupq_n_f32(job.high);
  const auto four = [&](float32x4_t a, float32x4_t b) {
    const float32x4_t value = vfmaq_f32(vfmaq_f32(fixed, b, ratio_b), a, ratio_a);
    return vreinterpretq_s16_s32(vcvtnq_s32_f32(vminnmq_f32(vmaxnmq_f32(value, low), high)));
  };
  const auto eight = [&](const std::uint8_t* from_a, const std::uint8_t* from_b) {
    const float32x4x2_t a = load_bytes(from_a, sign_a), b = load_bytes(from_b, sign_b);
    const int16x8_t q = vuzp1q_s16(four(a.val[0], b.val[0]), four(a.val[1], b.val[1]));
    return vmovn_u16(vreinterpretq_u16_s16(q));
  };
  for (std::size_t row = 0; row < job.rows; ++row) {
    std::size_t i = row * job.stride;
    const std::size_t end = i + job.count;
    for (; i + 8 <= end; i += 8) vst1_u8(job.out + i, eight(job.a + i, job.b + i));
    if (i == end) continue;
    std::uint8_t a[8] = {}, b[8] = {}, tail[8];
    for (std::size_t j = 0; i + j < end; ++j) {
      a[j] = job.a[i + j];
      b[j] = job.b[i + j];
    }
    vst1_u8(tail, eight(a, b));
    for (std::size_t j = 0; i + j < end; ++j) job.out[i + j] = tail[j];
  }
}

/// Comparing and selecting leaves NaN and the sign of zero alone, which fmax and fmin would not.
void add_f32(const float* a, const float* b, float low, float high, float* out, std::size_t count) {
  const float32x4_t lows = vdupq_n_f32(low), highs = vdupq_n_f32(high);
  std::size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    float32x4_t sum = vaddq_f32(vld1q_f32(a + i), vld1q_f32(b + i));
    sum = vbslq_f32(vcltq_f32(sum, lows), lows, sum);
    vst1q_f32(out + i, vbslq_f32(vcgtq_f32(sum, highs), highs, sum));
  }
  for (; i < count; ++i) {
    const float sum = a[i] + b[i];
    const float raised = sum < low ? low : sum;
    out[i] = raised > high ? high : raised;
  }
}

}  // namespace

void install_elementwise_neon(ElementwiseKernels& slots) {
  slots.lookup = lookup;
  slots.add_bytes = add_bytes;
  slots.add_f32 = add_f32;
  slots.curve_f32 = curve_f32;
}

}  // namespace gristmill
