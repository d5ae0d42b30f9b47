#include <immintrin.h>

#include "quantize_kernels.h"

namespace gristmill {
namespace {

constexpr std::size_t kGroup = 64, kVector = 16, kLine = 64, kFetchDistance = 4096;
constexpr int kFirstLevel = 3, kSecondLevel = 2;  // of the caches, for __builtin_prefetch
constexpr std::size_t kBundle = 4, kBundleFetchDistance = 65536;

// How a group touches memory: all 64 elements, all of them with stores around the caches, or the first few.
// `at` is the place of a vector of sixteen in the group.

struct Whole {
  static __m512 load(const float* p, std::size_t at) { return _mm512_loadu_ps(p + at); }
  static __m512i load(const std::int32_t* p, std::size_t at) { return _mm512_loadu_si512(p + at); }
  static __m512i widen(const std::uint8_t* p, std::size_t at) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + at)));
  }
  static void store(float* p, std::size_t at, __m512 v) { _mm512_storeu_ps(p + at, v); }
  static void store(std::uint8_t* p, __m512i v) { _mm512_storeu_si512(p, v); }
};

struct Streamed : Whole {
  static void store(float* p, std::size_t at, __m512 v) { _mm512_stream_ps(p + at, v); }
  static void store(std::uint8_t* p, __m512i v) { _mm512_stream_si512(reinterpret_cast<__m512i*>(p), v); }
};

struct Part {
  std::uint64_t valid;
  explicit Part(std::size_t count) : valid((std::uint64_t{1} << count) - 1) {}

  __mmask16 mask(std::size_t at) const { return static_cast<__mmask16>(valid >> at); }
  __m512 load(const float* p, std::size_t at) const { return _mm512_maskz_loadu_ps(mask(at), p + at); }
  __m512i load(const std::int32_t* p, std::size_t at) const {
    return _mm512_maskz_loadu_epi32(mask(at), p + at);
  }
  __m512i widen(const std::uint8_t* p, std::size_t at) const {
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask(at), p + at));
  }
  void store(float* p, std::size_t at, __m512 v) const { _mm512_mask_storeu_ps(p + at, mask(at), v); }
  void store(std::uint8_t* p, __m512i v) const { _mm512_mask_storeu_epi8(p, valid, v); }
};

// The map of vector `at` of a group: the same for all elements, or from a repeating sequence in which the
// group begins at `lane`.

struct Same {
  __m512 scale_, steps_, offset_;
  __m512i zero_point_, flip;

  explicit Same(const Affine& map)
      : scale_(_mm512_set1_ps(map.scale)),
        steps_(_mm512_set1_ps(map.steps)),
        offset_(_mm512_set1_ps(map.offset)),
        zero_point_(_mm512_set1_epi32(map.zero_point)),
        flip(_mm512_set1_epi8(static_cast<char>(map.flip))) {}

  static std::size_t lane(std::size_t) { return 0; }
  static std::size_t next(std::size_t) { return 0; }
  const Same& seldom() const { return *this; }
  __m512 scale(std::size_t) const { return scale_; }
  __m512 steps(std::size_t) const { return steps_; }
  __m512 offset(std::size_t) const { return offset_; }
  __m512i zero_point(std::size_t) const { return zero_point_; }
};

/// kLaneOverrun covers a whole group, so that a partial one may load its maps whole.
struct Each {
  AffineLanes map;
  __m512i flip;

  explicit Each(const AffineLanes& lanes)
      : map(lanes), flip(_mm512_set1_epi8(static_cast<char>(lanes.flip))) {}

  std::size_t lane(std::size_t i) const { return (map.first + i) % map.period; }
  std::size_t next(std::size_t lane) const {
    lane += kGroup;
    return lane < map.period ? lane : lane - map.period;
  }
  const Each& seldom() const { return *this; }
  __m512 scale(std::size_t lane) const { return Whole::load(map.scale, lane); }
  __m512 steps(std::size_t lane) const { return Whole::load(map.steps, lane); }
  __m512 offset(std::size_t lane) const { return Whole::load(map.offset, lane); }
  __m512i zero_point(std::size_t lane) const { return Whole::load(map.zero_point, lane); }
};

static_assert(kLaneOverrun >= kGroup);

/// The maps of the group at `first` of Each, in registers, for groups of several periods. Maps that the usual
/// way of an operation does not need are not loaded; what is seldom needed comes from memory.
struct Held {
  AffineLanes from_first;
  __m512 scale_[4], steps_[4], offset_[4];
  __m512i zero_point_[4], flip;

  Held(const Each& each, std::size_t first) : from_first(each.map), flip(each.flip) {
    from_first.scale += first;
    from_first.zero_point += first;
    for (std::size_t k = 0; k < 4; ++k) {
      const std::size_t at = first + kVector * k;
      scale_[k] = each.scale(at);
      steps_[k] = each.steps(at);
      offset_[k] = each.offset(at);
      zero_point_[k] = each.zero_point(at);
    }
  }

  Each seldom() const { return Each(from_first); }
  __m512 scale(std::size_t at) const { return scale_[at / kVector]; }
  __m512 steps(std::size_t at) const { return steps_[at / kVector]; }
  __m512 offset(std::size_t at) const { return offset_[at / kVector]; }
  __m512i zero_point(std::size_t at) const { return zero_point_[at / kVector]; }
};

/// Bytes of 64 integers, saturated to 0..255: four packs of 128-bit blocks, in which dword b of block k is
/// dword k of block b, and the transposition of that 4x4.
__m512i pack_integers(const __m512i n[4]) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(n[0], n[1]), _mm512_packs_epi32(n[2], n[3]));
  return _mm512_permutexvar_epi32(order, bytes);
}

/// Bytes of the upper halves of 64 fixed-point numbers, saturated to 0..255: the words 1, 3, ... 63 of two
/// vectors each, packed, which puts eight bytes of either side by side.
__m512i pack_upper(const __m512i y[4]) {
  const __m512i upper =
      _mm512_cvtepu8_epi16(_mm256_setr_epi8(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35,
                                            37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63));
  const __m512i bytes = _mm512_packus_epi16(_mm512_permutex2var_epi16(y[0], upper, y[1]),
                                            _mm512_permutex2var_epi16(y[2], upper, y[3]));
  return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), bytes);
}

/// rne(v) + zero_point, for packing; beyond s32 upward stays upward, NaN and beyond downward become negative.
/// min_ps returns its second operand if either is NaN.
template <class Map>
__m512i shift_rounded(__m512 v, const Map& map, std::size_t lane) {
  const __m512 capped = _mm512_min_ps(_mm512_set1_ps(1024.0f), v);
  return _mm512_add_epi32(_mm512_cvtps_epi32(capped), map.zero_point(lane));
}

template <class Map, class Access>
__m512i divide_group(const float* x, const Map& map, std::size_t lane, Access access) {
  __m512i n[4];
  for (std::size_t k = 0; k < 4; ++k) {
    const std::size_t at = kVector * k;
    n[k] = shift_rounded(_mm512_div_ps(access.load(x, at), map.scale(lane + at)), map, lane + at);
  }
  return pack_integers(n);
}

/// The exact-division identity of gristmill/quantize.h on one group: y = Y.
struct Quantize {
  template <class Map, class Access>
  static void group(const float* x, std::uint8_t* q, const Map& map, std::size_t lane, Access access) {
    constexpr __mmask32 kLowerHalves = 0x55555555;
    __m512i y[4];
    for (std::size_t k = 0; k < 4; ++k) {
      const std::size_t at = kVector * k;
      y[k] = _mm512_cvtps_epi32(
          _mm512_fmadd_ps(access.load(x, at), map.steps(lane + at), map.offset(lane + at)));
    }
    const __m512i least = _mm512_min_epu16(_mm512_min_epu16(y[0], y[1]), _mm512_min_epu16(y[2], y[3]));
    const bool near_tie =
        _mm512_mask_cmplt_epu16_mask(kLowerHalves, least, _mm512_set1_epi16(2 * kTieMargin)) != 0;
    const __m512i bytes = near_tie ? divide_group(x, map.seldom(), lane, access) : pack_upper(y);
    access.store(q, _mm512_xor_si512(bytes, map.flip));
  }
};

struct Requantize {
  template <class Map, class Access>
  static void group(const std::int32_t* acc, std::uint8_t* q, const Map& map, std::size_t lane,
                    Access access) {
    __m512i n[4];
    for (std::size_t k = 0; k < 4; ++k) {
      const std::size_t at = kVector * k;
      const __m512 real = _mm512_mul_ps(_mm512_cvtepi32_ps(access.load(acc, at)), map.scale(lane + at));
      n[k] = shift_rounded(real, map, lane + at);
    }
    access.store(q, _mm512_xor_si512(pack_integers(n), map.flip));
  }
};

/// For 0 <= n < 2^23 the float with the bits of 2^23 or'ed with n is 2^23 + n; differences of two are exact.
struct Dequantize {
  template <class Map, class Access>
  static void group(const std::uint8_t* q, float* x, const Map& map, std::size_t lane, Access access) {
    const __m512i two23 = _mm512_castps_si512(_mm512_set1_ps(0x1p23f));
    const __m512i flip = _mm512_or_si512(two23, _mm512_srli_epi32(map.flip, 24));
    for (std::size_t at = 0; at < kGroup; at += kVector) {
      const __m512i raised = _mm512_xor_si512(access.widen(q, at), flip);
      const __m512i raised_zero = _mm512_or_si512(map.zero_point(lane + at), two23);
      const __m512 n = _mm512_sub_ps(_mm512_castsi512_ps(raised), _mm512_castsi512_ps(raised_zero));
      access.store(x, at, _mm512_mul_ps(n, map.scale(lane + at)));
    }
  }
};

struct Rescale {
  template <class Map, class Access>
  static void group(const std::int32_t* acc, float* y, const Map& map, std::size_t lane, Access access) {
    for (std::size_t at = 0; at < kGroup; at += kVector)
      access.store(y, at, _mm512_mul_ps(_mm512_cvtepi32_ps(access.load(acc, at)), map.scale(lane + at)));
  }
};

/// Elements that bring `out` to the alignment of streaming stores: below kGroup, so that a group stored at
/// the start unaligned covers them.
template <class Out>
std::size_t streaming_lead(const Out* out) {
  return (0 - reinterpret_cast<std::uintptr_t>(out)) % kLine / sizeof(Out);
}

/// Fetches what the group a little further on will read. The arithmetic of a group takes so many instructions
/// that the processor does not look far enough ahead by itself to keep memory busy.
template <int nearness, class In>
void fetch_ahead(const In* in, std::size_t distance) {
  const auto ahead = reinterpret_cast<std::uintptr_t>(in) + distance;
  for (std::size_t at = 0; at < kGroup * sizeof(In); at += kLine)
    __builtin_prefetch(reinterpret_cast<const char*>(ahead + at), 0, nearness);
}

/// Runs an operation over n elements in groups and a partial group.
template <class Operation, class In, class Out, class Map>
void for_each_group(const In* in, Out* out, std::size_t n, const Map& map, bool stream) {
  std::size_t i = 0, lane = map.lane(0);
  if (stream && n >= kGroup && reinterpret_cast<std::uintptr_t>(out) % sizeof(Out) == 0) {
    i = streaming_lead(out);
    if (i > 0) Operation::group(in, out, map, lane, Whole{});
    for (lane = map.lane(i); i + kGroup <= n; i += kGroup, lane = map.next(lane)) {
      fetch_ahead<kFirstLevel>(in + i, kFetchDistance);
      Operation::group(in + i, out + i, map, lane, Streamed{});
    }
  } else {
    for (; i + kGroup <= n; i += kGroup, lane = map.next(lane))
      Operation::group(in + i, out + i, map, lane, Whole{});
  }
  if (i < n) Operation::group(in + i, out + i, map, lane, Part(n - i));
}

template <class Operation, class In, class Out>
void run(const In* in, Out* out, std::size_t n, const Affine& map, bool stream) {
  for_each_group<Operation>(in, out, n, Same(map), stream);
}

/// Groups below each other in kBundle periods of whole groups, whose maps are loaded once.
template <class Operation, class Access, class In, class Out>
void bundle(const In* in, Out* out, const Each& each, std::size_t period, bool stream) {
  for (std::size_t lane = 0; lane < period; lane += kGroup) {
    const Held held(each, lane);
    for (std::size_t i = lane; i < kBundle * period; i += period) {
      if (stream) fetch_ahead<kSecondLevel>(in + i, kBundleFetchDistance);
      Operation::group(in + i, out + i, held, 0, Access{});
    }
  }
}

template <class Operation, class In, class Out>
void lanes(const In* in, Out* out, std::size_t n, const AffineLanes& map, bool stream) {
  const Each each(map);
  const std::size_t lead = map.first == 0 ? 0 : map.period - map.first, rows = kBundle * map.period;
  std::size_t i = 0;
  if (map.period % kGroup == 0 && lead + rows <= n) {
    for_each_group<Operation>(in, out, lead, each, stream);
    const bool aligned = reinterpret_cast<std::uintptr_t>(out + lead) % kLine == 0;
    for (i = lead; i + rows <= n; i += rows) {
      if (stream && aligned) {
        bundle<Operation, Streamed>(in + i, out + i, each, map.period, stream);
      } else {
        bundle<Operation, Whole>(in + i, out + i, each, map.period, stream);
      }
    }
  }
  AffineLanes rest = map;
  rest.first = each.lane(i);
  for_each_group<Operation>(in + i, out + i, n - i, Each(rest), stream);
}

/// Extremes of a stream of vectors. min_ps and max_ps return the second operand if either is NaN, so that the
/// extremes stay numbers, and `nan` remembers.
struct Extremes {
  __m512 low = _mm512_set1_ps(__builtin_inff()), high = _mm512_set1_ps(-__builtin_inff());
  __mmask16 nan = 0;

  void take(__m512 x) {
    low = _mm512_min_ps(x, low);
    high = _mm512_max_ps(x, high);
    nan |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  }
  void take(const Extremes& other) {
    low = _mm512_min_ps(other.low, low);
    high = _mm512_max_ps(other.high, high);
    nan |= other.nan;
  }
};

/// Lanes past the end take the first element once more.
void min_max_run(const float* x, std::size_t n, float* low, float* high) {
  if (n == 0) return;
  Extremes e[4];
  std::size_t i = 0;
  for (; i + kGroup <= n; i += kGroup)
    for (std::size_t k = 0; k < 4; ++k) e[k].take(_mm512_loadu_ps(x + i + kVector * k));
  for (; i < n; i += kVector) {
    const std::uint32_t valid = n - i < kVector ? (1u << (n - i)) - 1 : 0xFFFF;
    e[0].take(_mm512_mask_loadu_ps(_mm512_set1_ps(x[0]), static_cast<__mmask16>(valid), x + i));
  }
  for (std::size_t k = 1; k < 4; ++k) e[0].take(e[k]);
  const float least = _mm512_reduce_min_ps(e[0].low), greatest = _mm512_reduce_max_ps(e[0].high);
  if (least < *low) *low = least;
  if (greatest > *high) *high = greatest;
  if (e[0].nan != 0) *low = *high = __builtin_nanf("");
}

template <class Access>
void min_max_vector(const float* x, float* low, float* high, Access access) {
  const __m512 v = access.load(x, 0), least = access.load(low, 0), greatest = access.load(high, 0);
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  access.store(low, 0, _mm512_mask_mov_ps(_mm512_min_ps(v, least), nan, v));
  access.store(high, 0, _mm512_mask_mov_ps(_mm512_max_ps(v, greatest), nan, v));
}

void min_max_lanes(const float* x, std::size_t n, float* low, float* high) {
  std::size_t i = 0;
  for (; i + kVector <= n; i += kVector) min_max_vector(x + i, low + i, high + i, Whole{});
  if (i < n) min_max_vector(x + i, low + i, high + i, Part{n - i});
}

}  // namespace

void install_quantize_avx512vnni(QuantizeKernels& slots) {
  slots.quantize_run = run<Quantize>;
  slots.quantize_lanes = lanes<Quantize>;
  slots.dequantize_run = run<Dequantize>;
  slots.dequantize_lanes = lanes<Dequantize>;
  slots.requantize_run = run<Requantize>;
  slots.requantize_lanes = lanes<Requantize>;
  slots.rescale_run = run<Rescale>;
  slots.rescale_lanes = lanes<Rescale>;
  slots.min_max_run = min_max_run;
  slots.min_max_lanes = min_max_lanes;
}

}  // namespace gristmill
