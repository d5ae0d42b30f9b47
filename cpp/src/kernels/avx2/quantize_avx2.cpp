#include <immintrin.h>

#include "quantize_kernels.h"

namespace gristmill {
namespace {

constexpr std::size_t kGroup = 32, kLine = 64, kFetchDistance = 4096;

// How a group touches memory: all 32 elements, all of them with stores around the caches, or the first few.
// `at` is the place of a vector of eight in the group.

struct Whole {
  static __m256 load(const float* p, std::size_t at) { return _mm256_loadu_ps(p + at); }
  static __m256i load(const std::int32_t* p, std::size_t at) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + at));
  }
  static __m256i widen(const std::uint8_t* p, std::size_t at) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + at)));
  }
  static void store(float* p, std::size_t at, __m256 v) { _mm256_storeu_ps(p + at, v); }
  static void store(std::uint8_t* p, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
};

struct Streamed : Whole {
  static void store(float* p, std::size_t at, __m256 v) { _mm256_stream_ps(p + at, v); }
  static void store(std::uint8_t* p, __m256i v) { _mm256_stream_si256(reinterpret_cast<__m256i*>(p), v); }
};

struct Part {
  std::size_t count;

  __m256i mask(std::size_t at) const {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count) - static_cast<int>(at)), lane);
  }
  __m256 load(const float* p, std::size_t at) const { return _mm256_maskload_ps(p + at, mask(at)); }
  __m256i load(const std::int32_t* p, std::size_t at) const {
    return _mm256_maskload_epi32(p + at, mask(at));
  }
  __m256i widen(const std::uint8_t* p, std::size_t at) const {
    std::uint8_t bytes[8] = {};
    for (std::size_t i = at; i < count && i < at + 8; ++i) bytes[i - at] = p[i];
    return Whole::widen(bytes, 0);
  }
  void store(float* p, std::size_t at, __m256 v) const { _mm256_maskstore_ps(p + at, mask(at), v); }
  void store(std::uint8_t* p, __m256i v) const {
    alignas(32) std::uint8_t bytes[kGroup];
    _mm256_store_si256(reinterpret_cast<__m256i*>(bytes), v);
    for (std::size_t i = 0; i < count; ++i) p[i] = bytes[i];
  }
};

// The map of vector `at` of a group: the same for all elements, or from a repeating sequence in which the
// group begins at `lane`.

struct Same {
  __m256 scale_, steps_, offset_;
  __m256i zero_point_, flip;

  explicit Same(const Affine& map)
      : scale_(_mm256_set1_ps(map.scale)),
        steps_(_mm256_set1_ps(map.steps)),
        offset_(_mm256_set1_ps(map.offset)),
        zero_point_(_mm256_set1_epi32(map.zero_point)),
        flip(_mm256_set1_epi8(static_cast<char>(map.flip))) {}

  static std::size_t lane(std::size_t) { return 0; }
  static std::size_t next(std::size_t) { return 0; }

  template <class Access>
  __m256 scale(std::size_t, std::size_t, Access) const {
    return scale_;
  }
  template <class Access>
  __m256 steps(std::size_t, std::size_t, Access) const {
    return steps_;
  }
  template <class Access>
  __m256 offset(std::size_t, std::size_t, Access) const {
    return offset_;
  }
  template <class Access>
  __m256i zero_point(std::size_t, std::size_t, Access) const {
    return zero_point_;
  }
};

struct Each {
  AffineLanes map;
  __m256i flip;

  explicit Each(const AffineLanes& lanes)
      : map(lanes), flip(_mm256_set1_epi8(static_cast<char>(lanes.flip))) {}

  /// The lane of element i, and that of the group after the one at `lane`.
  std::size_t lane(std::size_t i) const { return (map.first + i) % map.period; }
  std::size_t next(std::size_t lane) const {
    lane += kGroup;
    return lane < map.period ? lane : lane - map.period;
  }

  template <class Access>
  __m256 scale(std::size_t lane, std::size_t at, Access access) const {
    return access.load(map.scale + lane, at);
  }
  template <class Access>
  __m256 steps(std::size_t lane, std::size_t at, Access access) const {
    return access.load(map.steps + lane, at);
  }
  template <class Access>
  __m256 offset(std::size_t lane, std::size_t at, Access access) const {
    return access.load(map.offset + lane, at);
  }
  template <class Access>
  __m256i zero_point(std::size_t lane, std::size_t at, Access access) const {
    return access.load(map.zero_point + lane, at);
  }
};

// Packing works within 128-bit halves and leaves dwords 0L 1L 2L 3L | 0H 1H 2H 3H, where kL and kH are the
// two halves of vector k.
__m256i join_halves(__m256i v) {
  return _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/// Bytes of 32 integers, saturated to 0..255.
__m256i pack_integers(const __m256i n[4]) {
  return join_halves(_mm256_packus_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3])));
}

/// Bytes of the upper halves of 32 fixed-point numbers, saturated to 0..255. `upper01` and `upper23`
/// interleave the upper halves of two vectors; a shuffle in each 128-bit half brings them apart.
__m256i pack_upper(__m256i upper01, __m256i upper23) {
  const __m256i apart =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
  return join_halves(_mm256_shuffle_epi8(_mm256_packus_epi16(upper01, upper23), apart));
}

/// rne(v) + zero_point, for packing; beyond s32 upward stays upward, NaN and beyond downward become negative.
/// min_ps returns its second operand if either is NaN.
template <class Map, class Access>
__m256i shift_rounded(__m256 v, const Map& map, std::size_t lane, std::size_t at, Access access) {
  const __m256 capped = _mm256_min_ps(_mm256_set1_ps(1024.0f), v);
  return _mm256_add_epi32(_mm256_cvtps_epi32(capped), map.zero_point(lane, at, access));
}

template <class Map, class Access>
__attribute__((noinline)) __m256i divide_group(const float* x, const Map& map, std::size_t lane,
                                               Access access) {
  __m256i n[4];
  for (std::size_t k = 0; k < 4; ++k) {
    const __m256 quotient = _mm256_div_ps(access.load(x, 8 * k), map.scale(lane, 8 * k, access));
    n[k] = shift_rounded(quotient, map, lane, 8 * k, access);
  }
  return pack_integers(n);
}

/// The exact-division identity of gristmill/quantize.h on one group: y = Y. A saturating difference of the
/// least accepted lower half, with an upper half of 0, and the least Y is not 0 near a tie.
struct Quantize {
  template <class Map, class Access>
  static void group(const float* x, std::uint8_t* q, const Map& map, std::size_t lane, Access access) {
    __m256i y[4];
    for (std::size_t k = 0; k < 4; ++k) {
      const __m256 fixed = _mm256_fmadd_ps(access.load(x, 8 * k), map.steps(lane, 8 * k, access),
                                           map.offset(lane, 8 * k, access));
      y[k] = _mm256_cvtps_epi32(fixed);
    }
    const __m256i least = _mm256_min_epu16(_mm256_min_epu16(y[0], y[1]), _mm256_min_epu16(y[2], y[3]));
    const __m256i near_tie = _mm256_subs_epu16(_mm256_set1_epi32(2 * kTieMargin), least);
    const __m256i upper01 = _mm256_blend_epi16(_mm256_srli_epi32(y[0], 16), y[1], 0xAA);
    const __m256i upper23 = _mm256_blend_epi16(_mm256_srli_epi32(y[2], 16), y[3], 0xAA);
    const __m256i bytes = _mm256_testz_si256(near_tie, near_tie) != 0 ? pack_upper(upper01, upper23)
                                                                      : divide_group(x, map, lane, access);
    access.store(q, _mm256_xor_si256(bytes, map.flip));
  }
};

struct Requantize {
  template <class Map, class Access>
  static void group(const std::int32_t* acc, std::uint8_t* q, const Map& map, std::size_t lane,
                    Access access) {
    __m256i n[4];
    for (std::size_t k = 0; k < 4; ++k) {
      const __m256 real = _mm256_cvtepi32_ps(access.load(acc, 8 * k));
      n[k] = shift_rounded(_mm256_mul_ps(real, map.scale(lane, 8 * k, access)), map, lane, 8 * k, access);
    }
    access.store(q, _mm256_xor_si256(pack_integers(n), map.flip));
  }
};

/// For 0 <= n < 2^23 the float with the bits of 2^23 or'ed with n is 2^23 + n; differences of two are exact.
struct Dequantize {
  template <class Map, class Access>
  static void group(const std::uint8_t* q, float* x, const Map& map, std::size_t lane, Access access) {
    const __m256i two23 = _mm256_set1_epi32(0x4B000000);
    const __m256i flip = _mm256_or_si256(two23, _mm256_srli_epi32(map.flip, 24));
    for (std::size_t k = 0; k < 4; ++k) {
      const __m256 raised = _mm256_castsi256_ps(_mm256_xor_si256(access.widen(q, 8 * k), flip));
      const __m256 raised_zero =
          _mm256_castsi256_ps(_mm256_or_si256(map.zero_point(lane, 8 * k, access), two23));
      const __m256 n = _mm256_sub_ps(raised, raised_zero);
      access.store(x, 8 * k, _mm256_mul_ps(n, map.scale(lane, 8 * k, access)));
    }
  }
};

struct Rescale {
  template <class Map, class Access>
  static void group(const std::int32_t* acc, float* y, const Map& map, std::size_t lane, Access access) {
    for (std::size_t k = 0; k < 4; ++k) {
      const __m256 real = _mm256_cvtepi32_ps(access.load(acc, 8 * k));
      access.store(y, 8 * k, _mm256_mul_ps(real, map.scale(lane, 8 * k, access)));
    }
  }
};

/// Elements up to the next cache line of `out`, which streaming stores fill whole: 1..2 kGroup, so that
/// groups stored at the start unaligned cover them.
template <class Out>
std::size_t streaming_lead(const Out* out) {
  return (0 - reinterpret_cast<std::uintptr_t>(out)) % kLine / sizeof(Out);
}

/// Fetches what the group a little further on will read. The arithmetic of a group takes so many instructions
/// that the processor does not look far enough ahead by itself to keep memory busy.
template <class In>
void fetch_ahead(const In* in) {
  const auto ahead = reinterpret_cast<std::uintptr_t>(in) + kFetchDistance;
  for (std::size_t at = 0; at < kGroup * sizeof(In); at += kLine)
    _mm_prefetch(reinterpret_cast<const char*>(ahead + at), _MM_HINT_T0);
}

/// Runs an operation over n >= 2 kGroup elements in whole groups, stored around the caches; returns how many
/// elements they cover.
template <class Operation, class In, class Out, class Map>
std::size_t stream_groups(const In* in, Out* out, std::size_t n, const Map& map) {
  const std::size_t lead = streaming_lead(out);
  std::size_t i = 0, lane = map.lane(0);
  for (; i < lead; i += kGroup) Operation::group(in + i, out + i, map, map.lane(i), Whole{});
  i = lead;
  for (lane = map.lane(i); i + kGroup <= n; i += kGroup, lane = map.next(lane)) {
    fetch_ahead(in + i);
    Operation::group(in + i, out + i, map, lane, Streamed{});
  }
  return i;
}

/// Runs an operation over n elements in groups; the last group overlaps the one before.
template <class Operation, class In, class Out, class Map>
void for_each_group(const In* in, Out* out, std::size_t n, const Map& map, bool stream) {
  if (n < kGroup) return Operation::group(in, out, map, map.lane(0), Part{n});
  std::size_t i = 0;
  if (stream && n >= 2 * kGroup && reinterpret_cast<std::uintptr_t>(out) % sizeof(Out) == 0)
    i = stream_groups<Operation>(in, out, n, map);
  else
    for (std::size_t lane = map.lane(0); i + kGroup <= n; i += kGroup, lane = map.next(lane))
      Operation::group(in + i, out + i, map, lane, Whole{});
  if (i < n) Operation::group(in + n - kGroup, out + n - kGroup, map, map.lane(n - kGroup), Whole{});
}

template <class Operation, class In, class Out>
void run(const In* in, Out* out, std::size_t n, const Affine& map, bool stream) {
  for_each_group<Operation>(in, out, n, Same(map), stream);
}

template <class Operation, class In, class Out>
void lanes(const In* in, Out* out, std::size_t n, const AffineLanes& map, bool stream) {
  for_each_group<Operation>(in, out, n, Each(map), stream);
}

__m256 is_nan(__m256 a, __m256 b) { return _mm256_cmp_ps(a, b, _CMP_UNORD_Q); }

/// Extremes of a stream of vectors. min_ps and max_ps return the second operand if either is NaN, so that the
/// extremes stay numbers, and `nan` remembers.
struct Extremes {
  __m256 low = _mm256_set1_ps(__builtin_inff()), high = _mm256_set1_ps(-__builtin_inff());

  void take(__m256 x) {
    low = _mm256_min_ps(x, low);
    high = _mm256_max_ps(x, high);
  }
  void take(const Extremes& other) {
    low = _mm256_min_ps(other.low, low);
    high = _mm256_max_ps(other.high, high);
  }
};

void take_one(float x, float* low, float* high) {
  if (x < *low || x != x) *low = x;
  if (x > *high || x != x) *high = x;
}

void min_max_run(const float* x, std::size_t n, float* low, float* high) {
  Extremes e[4];
  __m256 nan = _mm256_setzero_ps();
  std::size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    __m256 v[4];
    for (std::size_t k = 0; k < 4; ++k) v[k] = _mm256_loadu_ps(x + i + 8 * k);
    for (std::size_t k = 0; k < 4; ++k) e[k].take(v[k]);
    nan = _mm256_or_ps(nan, _mm256_or_ps(is_nan(v[0], v[1]), is_nan(v[2], v[3])));
  }
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    e[0].take(v);
    nan = _mm256_or_ps(nan, is_nan(v, v));
  }
  for (std::size_t k = 1; k < 4; ++k) e[0].take(e[k]);
  alignas(32) float lows[8], highs[8];
  _mm256_store_ps(lows, e[0].low);
  _mm256_store_ps(highs, e[0].high);
  if (n >= 8)
    for (std::size_t k = 0; k < 8; ++k) {
      take_one(lows[k], low, high);
      take_one(highs[k], low, high);
    }
  for (; i < n; ++i) take_one(x[i], low, high);
  if (_mm256_movemask_ps(nan) != 0) *low = *high = __builtin_nanf("");
}

template <class Access>
void min_max_vector(const float* x, float* low, float* high, Access access) {
  const __m256 v = access.load(x, 0), nan = is_nan(v, v);
  const __m256 least = access.load(low, 0), greatest = access.load(high, 0);
  access.store(low, 0, _mm256_blendv_ps(_mm256_min_ps(v, least), v, nan));
  access.store(high, 0, _mm256_blendv_ps(_mm256_max_ps(v, greatest), v, nan));
}

void min_max_lanes(const float* x, std::size_t n, float* low, float* high) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) min_max_vector(x + i, low + i, high + i, Whole{});
  if (i < n) min_max_vector(x + i, low + i, high + i, Part{n - i});
}

}  // namespace

void install_quantize_avx2(QuantizeKernels& slots) {
  slots.quantize_run = run<Quantize>;
  slots.quantize_lanes = lanes<Quantize>;
  slots.dequantize_run = run<Dequantize>;
  slots.dequantize_lanes = lanes<Dequantize>;
  slots.requantize_run = run<Requantize>;
  slots.requantize_lanes = lanes<Requantize>;
  slots.rescale_run = run<Rescale>;
  slots.rescale_lanes = lanes<Rescale>;
  slots.finish_streams = [] { _mm_sfence(); };
  slots.min_max_run = min_max_run;
  slots.min_max_lanes = min_max_lanes;
}

}  // namespace gristmill
