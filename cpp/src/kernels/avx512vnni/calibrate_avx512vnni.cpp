#include <immintrin.h>

#include "calibrate_kernels.h"

namespace gristmill {
namespace {

constexpr int kChains = 12;

__m512i load(const void* p) { return _mm512_loadu_si512(p); }

std::uint64_t fold(__m512i v) {
  std::uint64_t words[8], folded = 0;
  _mm512_storeu_si512(words, v);
  for (std::uint64_t word : words) folded ^= word;
  return folded;
}

std::uint32_t first_lane(__m512i v) {
  std::uint32_t lanes[16];
  _mm512_storeu_si512(lanes, v);
  return lanes[0];
}

/// kChains chains of `step`, which does `per_step` operations. Named variables, because GCC leaves an array
/// in memory here.
template <class Step>
std::uint64_t run_chains(std::uint64_t rounds, std::uint64_t per_step, std::uint32_t* sink, Step step) {
  const int first = 0x3F800000 + static_cast<int>(*sink & 0xFF);  // 1.0f and a little
  const auto start = [=](int i) { return _mm512_set1_epi32(first + 64 * i); };
  __m512i a = start(0), b = start(1), c = start(2), d = start(3), e = start(4), f = start(5);
  __m512i g = start(6), h = start(7), i = start(8), j = start(9), k = start(10), l = start(11);
  for (std::uint64_t r = 0; r < rounds; ++r) {
    a = step(a), b = step(b), c = step(c), d = step(d), e = step(e), f = step(f);
    g = step(g), h = step(h), i = step(i), j = step(j), k = step(k), l = step(l);
  }
  const __m512i chains[kChains] = {a, b, c, d, e, f, g, h, i, j, k, l};
  *sink = 0;
  for (__m512i value : chains) *sink += first_lane(value);
  return rounds * kChains * per_step;
}

std::uint64_t int8_macs(std::uint64_t rounds, std::uint32_t* sink) {
  const __m512i activations = _mm512_set1_epi8(99), weights = _mm512_set1_epi8(77);
  return run_chains(rounds, 64, sink,
                    [=](__m512i acc) { return _mm512_dpbusd_epi32(acc, activations, weights); });
}

std::uint64_t f32_fmas(std::uint64_t rounds, std::uint32_t* sink) {
  const __m512 factor = _mm512_set1_ps(0.75f), term = _mm512_set1_ps(0.25f);  // 1 is the fixed point
  return run_chains(rounds, 16, sink, [=](__m512i acc) {
    return _mm512_castps_si512(_mm512_fmadd_ps(_mm512_castsi512_ps(acc), factor, term));
  });
}

std::uint64_t read(const void* data, std::size_t blocks, std::uint64_t passes) {
  constexpr int kVectors = 8;
  __m512i sum[kVectors];
  for (__m512i& s : sum) s = _mm512_setzero_si512();
  for (std::uint64_t pass = 0; pass < passes; ++pass) {
    const char* p = static_cast<const char*>(data);
    for (std::size_t b = 0; b < blocks; ++b, p += kReadBlock)
      for (int i = 0; i < kVectors; ++i) sum[i] = _mm512_xor_si512(sum[i], load(p + 64 * i));
  }
  for (int i = 1; i < kVectors; ++i) sum[0] = _mm512_xor_si512(sum[0], sum[i]);
  return fold(sum[0]);
}

template <bool kStreaming>
void store(void* p, __m512i v) {
  if constexpr (kStreaming)
    _mm512_stream_si512(static_cast<__m512i*>(p), v);
  else
    _mm512_storeu_si512(p, v);
}

template <bool kStreaming>
void narrow(const void* in, void* out, std::size_t blocks) {
  const char* from = static_cast<const char*>(in);
  char* to = static_cast<char*>(out);
  for (std::size_t b = 0; b < blocks; ++b, from += kNarrowBlock, to += kByteBlock) {
    const __m512i a = _mm512_xor_si512(load(from), load(from + 64));
    const __m512i c = _mm512_xor_si512(load(from + 128), load(from + 192));
    store<kStreaming>(to, _mm512_xor_si512(a, c));
  }
  if constexpr (kStreaming) _mm_sfence();
}

template <bool kStreaming>
void widen(const void* in, void* out, std::size_t blocks) {
  const char* from = static_cast<const char*>(in);
  char* to = static_cast<char*>(out);
  for (std::size_t b = 0; b < blocks; ++b, from += kByteBlock, to += kNarrowBlock) {
    const __m512i v = load(from);
    for (int copy = 0; copy < 256; copy += 64) store<kStreaming>(to + copy, v);
  }
  if constexpr (kStreaming) _mm_sfence();
}

}  // namespace

void install_calibrate_avx512vnni(CalibrateKernels& slots) {
  slots = {.int8_macs = int8_macs,
           .int8_saturating_macs = nullptr,
           .f32_fmas = f32_fmas,
           .read = read,
           .narrow = narrow<false>,
           .narrow_streaming = narrow<true>,
           .widen = widen<false>,
           .widen_streaming = widen<true>};
}

}  // namespace gristmill
