#include <cstring>

#include "calibrate_kernels.h"

namespace gristmill {
namespace {

constexpr int kChains = 8;

// Plain C++, whatever the compiler makes of it. Neighbouring chains feed each other, so that it cannot
// simplify the sums.

std::uint64_t int8_macs(std::uint64_t rounds, std::uint32_t* sink) {
  std::uint32_t chain[kChains];
  for (int i = 0; i < kChains; ++i) chain[i] = 77 + static_cast<std::uint32_t>(i);
  const std::uint32_t weight = *sink | 1;
  for (std::uint64_t r = 0; r < rounds; ++r)
    for (int i = 0; i < kChains; ++i) chain[i] += chain[(i + 3) % kChains] * weight;
  *sink = 0;
  for (std::uint32_t value : chain) *sink += value;
  return rounds * kChains;
}

std::uint64_t f32_fmas(std::uint64_t rounds, std::uint32_t* sink) {
  float chain[kChains];
  const float factor = 0x1p-30f;  // leaves the sums where they are
  for (int i = 0; i < kChains; ++i)
    chain[i] = static_cast<float>((*sink & 0xFF) + 1) + static_cast<float>(i) / kChains;
  for (std::uint64_t r = 0; r < rounds; ++r)
    for (int i = 0; i < kChains; ++i) chain[i] = chain[(i + 3) % kChains] * factor + chain[i];
  for (int i = 1; i < kChains; ++i) chain[0] += chain[i];
  std::memcpy(sink, &chain[0], sizeof *sink);
  return rounds * kChains;
}

std::uint64_t word(const char* p) {
  std::uint64_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

std::uint64_t read(const void* data, std::size_t blocks, std::uint64_t passes) {
  const char* p = static_cast<const char*>(data);
  std::uint64_t sum = 0;
  for (std::uint64_t pass = 0; pass < passes; ++pass)
    for (std::size_t i = 0; i < blocks * kReadBlock; i += sizeof sum) sum ^= word(p + i);
  return sum;
}

void narrow(const void* in, void* out, std::size_t blocks) {
  const char* from = static_cast<const char*>(in);
  char* to = static_cast<char*>(out);
  for (std::size_t b = 0; b < blocks; ++b, from += kNarrowBlock, to += kByteBlock)
    for (std::size_t i = 0; i < kByteBlock; i += sizeof(std::uint64_t)) {
      const char* p = from + i;
      const std::uint64_t mixed = word(p) ^ word(p + 64) ^ word(p + 128) ^ word(p + 192);
      std::memcpy(to + i, &mixed, sizeof mixed);
    }
}

void widen(const void* in, void* out, std::size_t blocks) {
  const char* from = static_cast<const char*>(in);
  char* to = static_cast<char*>(out);
  for (std::size_t b = 0; b < blocks; ++b, from += kByteBlock, to += kNarrowBlock)
    for (std::size_t copy = 0; copy < kNarrowBlock; copy += kByteBlock)
      std::memcpy(to + copy, from, kByteBlock);
}

}  // namespace

void install_calibrate_scalar(CalibrateKernels& slots) {
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
