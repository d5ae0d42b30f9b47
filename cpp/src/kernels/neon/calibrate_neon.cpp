#include <arm_neon.h>

#include "calibrate_kernels.h"

namespace gristmill {
namespace {

constexpr int kChains = 12;

uint8x16_t load(const void* p) { return vld1q_u8(static_cast<const std::uint8_t*>(p)); }

std::uint64_t fold(uint8x16_t v) {
  const uint64x2_t words = vreinterpretq_u64_u8(v);
  return vgetq_lane_u64(words, 0) ^ vgetq_lane_u64(words, 1);
}

/// kChains chains of `step`, which does `per_step` operations. Named variables, because GCC leaves an array
/// in memory here.
template <class Step>
std::uint64_t run_chains(std::uint64_t rounds, std::uint64_t per_step, std::uint32_t* sink, Step step) {
  const int first = 0x3F800000 + static_cast<int>(*sink & 0xFF);  // 1.0f and a little
  const auto start = [=](int i) { return vdupq_n_s32(first + 64 * i); };
  int32x4_t a = start(0), b = start(1), c = start(2), d = start(3), e = start(4), f = start(5);
  int32x4_t g = start(6), h = start(7), i = start(8), j = start(9), k = start(10), l = start(11);
  for (std::uint64_t r = 0; r < rounds; ++r) {
    a = step(a), b = step(b), c = step(c), d = step(d), e = step(e), f = step(f);
    g = step(g), h = step(h), i = step(i), j = step(j), k = step(k), l = step(l);
  }
  const int32x4_t chains[kChains] = {a, b, c, d, e, f, g, h, i, j, k, l};
  *sink = 0;
  for (int32x4_t value : chains) *sink += static_cast<std::uint32_t>(vgetq_lane_s32(value, 0));
  return rounds * kChains * per_step;
}

/// Exact: with weights in [-127, 127] the sum of two products fits 16 bits.
std::uint64_t int8_macs(std::uint64_t rounds, std::uint32_t* sink) {
  const int8x16_t weights = vdupq_n_s8(77);
  return run_chains(rounds, 16, sink, [=](int32x4_t acc) {
    const int8x16_t own = vreinterpretq_s8_s32(acc);
    const int16x8_t low = vmull_s8(vget_low_s8(own), vget_low_s8(weights));
    return vpadalq_s16(acc, vmlal_high_s8(low, own, weights));
  });
}

std::uint64_t f32_fmas(std::uint64_t rounds, std::uint32_t* sink) {
  const float32x4_t factor = vdupq_n_f32(0x1p-30f);  // leaves the chain's value, which stays a normal number
  return run_chains(rounds, 4, sink, [=](int32x4_t acc) {
    const float32x4_t own = vreinterpretq_f32_s32(acc);
    return vreinterpretq_s32_f32(vfmaq_f32(own, own, factor));
  });
}

std::uint64_t read(const void* data, std::size_t blocks, std::uint64_t passes) {
  constexpr int kVectors = 8;
  uint8x16_t sum[kVectors];
  for (uint8x16_t& s : sum) s = vdupq_n_u8(0);
  for (std::uint64_t pass = 0; pass < passes; ++pass) {
    const char* p = static_cast<const char*>(data);
    for (std::size_t b = 0; b < 4 * blocks; ++b, p += kReadBlock / 4)
      for (int i = 0; i < kVectors; ++i) sum[i] = veorq_u8(sum[i], load(p + 16 * i));
  }
  for (int i = 1; i < kVectors; ++i) sum[0] = veorq_u8(sum[0], sum[i]);
  return fold(sum[0]);
}

void narrow(const void* in, void* out, std::size_t blocks) {
  const char* from = static_cast<const char*>(in);
  std::uint8_t* to = static_cast<std::uint8_t*>(out);
  for (std::size_t b = 0; b < blocks; ++b, from += kNarrowBlock, to += kByteBlock)
    for (int part = 0; part < 64; part += 16) {
      const uint8x16_t a = veorq_u8(load(from + part), load(from + 64 + part));
      const uint8x16_t c = veorq_u8(load(from + 128 + part), load(from + 192 + part));
      vst1q_u8(to + part, veorq_u8(a, c));
    }
}

void widen(const void* in, void* out, std::size_t blocks) {
  const char* from = static_cast<const char*>(in);
  std::uint8_t* to = static_cast<std::uint8_t*>(out);
  for (std::size_t b = 0; b < blocks; ++b, from += kByteBlock, to += kNarrowBlock) {
    uint8x16_t part[4];
    for (int i = 0; i < 4; ++i) part[i] = load(from + 16 * i);
    for (int i = 0; i < 16; ++i) vst1q_u8(to + 16 * i, part[i % 4]);
  }
}

}  // namespace

void install_calibrate_neon(CalibrateKernels& slots) {
  slots = {.int8_macs = int8_macs,
           .int8_saturating_macs = nullptr,
           .f32_fmas = f32_fmas,
           .read = read,
           .narrow = narrow,
           .narrow_streaming = nullptr,
           .widen = widen,
           .widen_streaming = nullptr};
}

}  // namespace gristmill
