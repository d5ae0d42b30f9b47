#include <immintrin.h>

#include "calibrate_kernels.h"

namespace gristmill {
namespace {

constexpr int kChains = 12;

__m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

std::uint64_t fold(__m256i v) {
  const __m128i half = _mm_xor_si128(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  return static_cast<std::uint64_t>(_mm_cvtsi128_si64(half)) ^
         static_cast<std::uint64_t>(_mm_extract_epi64(half, 1));
}

/// kChains chains of `step`, which does `per_step` operations on each of two chains: products of both before
/// sums of both, which the schedulers of the execution ports like best. Named variables, because GCC leaves
/// an array in memory here.
template <class Step>
std::uint64_t run_chains(std::uint64_t rounds, std::uint64_t per_step, std::uint32_t* sink, Step step) {
  const int first = 0x3F800000 + static_cast<int>(*sink & 0xFF);  // 1.0f and a little
  const auto start = [=](int i) { return _mm256_set1_epi32(first + 64 * i); };
  __m256i a = start(0), b = start(1), c = start(2), d = start(3), e = start(4), f = start(5);
  __m256i g = start(6), h = start(7), i = start(8), j = start(9), k = start(10), l = start(11);
  for (std::uint64_t r = 0; r < rounds; ++r) {
    step(a, b), step(c, d), step(e, f);
    step(g, h), step(i, j), step(k, l);
  }
  const __m256i chains[kChains] = {a, b, c, d, e, f, g, h, i, j, k, l};
  *sink = 0;
  for (__m256i value : chains)
    *sink += static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm256_castsi256_si128(value)));
  return rounds * kChains * per_step;
}

/// Exact: both operands are widened to 16 bits beforehand.
std::uint64_t int8_macs(std::uint64_t rounds, std::uint32_t* sink) {
  const __m256i weights = _mm256_set1_epi16(77);
  return run_chains(rounds, 16, sink, [=](__m256i& x, __m256i& y) {
    const __m256i sum_x = _mm256_madd_epi16(x, weights), sum_y = _mm256_madd_epi16(y, weights);
    x = _mm256_add_epi32(x, sum_x), y = _mm256_add_epi32(y, sum_y);
  });
}

/// As for weights in couples (dense_kernels.h): two products are added in 16 bits before they are widened.
std::uint64_t int8_saturating_macs(std::uint64_t rounds, std::uint32_t* sink) {
  const __m256i first = _mm256_set1_epi8(37), second = _mm256_set1_epi8(-40), ones = _mm256_set1_epi16(1);
  const auto couple = [=](__m256i x) {
    return _mm256_add_epi16(_mm256_maddubs_epi16(x, first), _mm256_maddubs_epi16(x, second));
  };
  return run_chains(rounds, 64, sink, [=](__m256i& x, __m256i& y) {
    const __m256i couple_x = couple(x), couple_y = couple(y);
    const __m256i sum_x = _mm256_madd_epi16(couple_x, ones), sum_y = _mm256_madd_epi16(couple_y, ones);
    x = _mm256_add_epi32(x, sum_x), y = _mm256_add_epi32(y, sum_y);
  });
}

std::uint64_t f32_fmas(std::uint64_t rounds, std::uint32_t* sink) {
  const __m256 factor = _mm256_set1_ps(0.75f), term = _mm256_set1_ps(0.25f);  // 1 is the fixed point
  const auto fma = [=](__m256i acc) {
    return _mm256_castps_si256(_mm256_fmadd_ps(_mm256_castsi256_ps(acc), factor, term));
  };
  return run_chains(rounds, 8, sink, [=](__m256i& x, __m256i& y) { x = fma(x), y = fma(y); });
}

std::uint64_t read(const void* data, std::size_t blocks, std::uint64_t passes) {
  constexpr int kVectors = 8;
  __m256i sum[kVectors];
  for (__m256i& s : sum) s = _mm256_setzero_si256();
  for (std::uint64_t pass = 0; pass < passes; ++pass) {
    const char* p = static_cast<const char*>(data);
    for (std::size_t b = 0; b < blocks; ++b, p += kReadBlock) {
      for (int i = 0; i < kVectors; ++i) sum[i] = _mm256_xor_si256(sum[i], load(p + 32 * i));
      for (int i = 0; i < kVectors; ++i) sum[i] = _mm256_xor_si256(sum[i], load(p + 256 + 32 * i));
    }
  }
  for (int i = 1; i < kVectors; ++i) sum[0] = _mm256_xor_si256(sum[0], sum[i]);
  return fold(sum[0]);
}

template <bool kStreaming>
void store(void* p, __m256i v) {
  if constexpr (kStreaming)
    _mm256_stream_si256(static_cast<__m256i*>(p), v);
  else
    _mm256_storeu_si256(static_cast<__m256i*>(p), v);
}

template <bool kStreaming>
void narrow(const void* in, void* out, std::size_t blocks) {
  const char* from = static_cast<const char*>(in);
  char* to = static_cast<char*>(out);
  for (std::size_t b = 0; b < blocks; ++b, from += kNarrowBlock, to += kByteBlock)
    for (int half = 0; half < 64; half += 32) {
      const __m256i a = _mm256_xor_si256(load(from + half), load(from + 64 + half));
      const __m256i c = _mm256_xor_si256(load(from + 128 + half), load(from + 192 + half));
      store<kStreaming>(to + half, _mm256_xor_si256(a, c));
    }
  if constexpr (kStreaming) _mm_sfence();
}

template <bool kStreaming>
void widen(const void* in, void* out, std::size_t blocks) {
  const char* from = static_cast<const char*>(in);
  char* to = static_cast<char*>(out);
  for (std::size_t b = 0; b < blocks; ++b, from += kByteBlock, to += kNarrowBlock) {
    const __m256i low = load(from), high = load(from + 32);
    for (int copy = 0; copy < 256; copy += 64) {
      store<kStreaming>(to + copy, low);
      store<kStreaming>(to + copy + 32, high);
    }
  }
  if constexpr (kStreaming) _mm_sfence();
}

}  // namespace

void install_calibrate_avx2(CalibrateKernels& slots) {
  slots = {.int8_macs = int8_macs,
           .int8_saturating_macs = int8_saturating_macs,
           .f32_fmas = f32_fmas,
           .read = read,
           .narrow = narrow<false>,
           .narrow_streaming = narrow<true>,
           .widen = widen<false>,
           .widen_streaming = widen<true>};
}

}  // namespace gristmill
