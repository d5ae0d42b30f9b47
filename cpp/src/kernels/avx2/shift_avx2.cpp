#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/unroll.h"
#include "panel_kernels.h"

namespace gristmill {
namespace {

/// Lanes of a row of bytes.
struct WholeBytes {
  static constexpr std::size_t kLanes = 32;
  static __m256i load(const std::uint8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void store(std::uint8_t* to, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v); }
};
struct EightBytes {
  static constexpr std::size_t kLanes = 8;
  static __m256i load(const std::uint8_t* from) {
    return _mm256_zextsi128_si256(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  }
  static void store(std::uint8_t* to, __m256i v) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(v));
  }
};

/// Packs the lanes from `from` on of some rows of a tap: (row & inside) ^ (fill & ~inside) ^ flip.
template <class Bytes>
void shift_bytes(const std::uint8_t* from, std::size_t from_step, const std::uint8_t* mask, __m256i fill,
                 __m256i flip, std::uint8_t* out, std::size_t out_step, std::size_t rows) {
  const __m256i inside = Bytes::load(mask);
  const __m256i rest = _mm256_xor_si256(_mm256_andnot_si256(inside, fill), flip);
  for (; rows > 0; --rows, from += from_step, out += out_step)
    Bytes::store(out, _mm256_xor_si256(_mm256_and_si256(Bytes::load(from), inside), rest));
}

void shift_u8(const ShiftJob& job, std::size_t lanes, std::uint8_t* panel) {
  const auto* base = static_cast<const std::uint8_t*>(job.base);
  const __m256i fill = _mm256_set1_epi8(static_cast<char>(job.fill));
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(job.flip));
  const std::size_t step = job.taps * lanes;
  for_each_tap(job, lanes, panel,
               [&](std::ptrdiff_t at, const std::uint8_t* mask, std::uint8_t* out, std::size_t rows) {
                 const RowRange whole = readable_rows(job, at, lanes, rows);
                 const auto row_at = [&](std::size_t r) {
                   return at + static_cast<std::ptrdiff_t>(r * job.plane_step);
                 };
                 for (std::size_t r = 0; r < rows; ++r)
                   if (r < whole.first || r >= whole.last)
                     pack_shifted_row(job, row_at(r), mask, lanes, job.flip, out + r * step);
                 const std::uint8_t* from = base + row_at(whole.first);
                 std::uint8_t* to = out + whole.first * step;
                 const std::size_t count = whole.last - whole.first;
                 std::size_t lane = 0;
                 for (; lane + WholeBytes::kLanes <= lanes; lane += WholeBytes::kLanes)
                   shift_bytes<WholeBytes>(from + lane, job.plane_step, mask + lane, fill, flip, to + lane,
                                           step, count);
                 for (; lane < lanes; lane += EightBytes::kLanes)
                   shift_bytes<EightBytes>(from + lane, job.plane_step, mask + lane, fill, flip, to + lane,
                                           step, count);
               });
}

/// Some vectors of lanes of a tap: what its rows have in common.
template <int kVectors>
struct ShiftedLanes {
  __m256i inside[kVectors], fill[kVectors];

  ShiftedLanes(const std::uint8_t* mask, __m256i fill_all) {
    unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
      inside[v] = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(mask + 8 * v)));
      fill[v] = _mm256_andnot_si256(inside[v], fill_all);
    });
  }

  /// A masked load reads no lane that the mask leaves out, and is many times slower than a whole one on some
  /// processors.
  template <bool kWhole>
  [[gnu::always_inline]] void pack(const int* from, std::uint32_t* out) const {
    unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
      const auto* at = reinterpret_cast<const __m256i*>(from + 8 * v);
      const __m256i lanes = kWhole ? _mm256_and_si256(_mm256_loadu_si256(at), inside[v])
                                   : _mm256_maskload_epi32(from + 8 * v, inside[v]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8 * v), _mm256_or_si256(lanes, fill[v]));
    });
  }

  void pack(const int* from, std::size_t from_step, std::uint32_t* out, std::size_t out_step,
            std::size_t rows, RowRange whole) const {
    for (std::size_t r = 0; r < rows; ++r, from += from_step, out += out_step)
      r >= whole.first&& r < whole.last ? pack<true>(from, out) : pack<false>(from, out);
  }
};

void shift_u32(const ShiftJob& job, std::size_t lanes, std::uint32_t* panel) {
  const auto* base = static_cast<const int*>(job.base);
  const __m256i fill = _mm256_set1_epi32(static_cast<int>(job.fill));
  const std::size_t step = job.taps * lanes;
  for_each_tap(
      job, lanes, panel,
      [&](std::ptrdiff_t at, const std::uint8_t* mask, std::uint32_t* out, std::size_t rows) {
        const RowRange whole = readable_rows(job, at, lanes, rows);
        const int* from = base + at;
        std::size_t lane = 0;
        for (; lane + 16 <= lanes; lane += 16)
          ShiftedLanes<2>(mask + lane, fill).pack(from + lane, job.plane_step, out + lane, step, rows, whole);
        if (lane < lanes)
          ShiftedLanes<1>(mask + lane, fill).pack(from + lane, job.plane_step, out + lane, step, rows, whole);
      });
}

/// e0 o0 e1 o1 ..   ->   e0 e1 ..   the low bytes of words,   o0 o1 ..   the high ones
template <int kOutputs>
class SplitBytes {
 public:
  using Element = std::uint8_t;
  static constexpr std::size_t kColumns = kOutputs;

  [[gnu::always_inline]] explicit SplitBytes(const std::uint8_t* from)
      : low_(load(from)), high_(kOutputs == 16 ? load(from + 16) : low_) {}
  [[gnu::always_inline]] void store_evens(std::uint8_t* to) const {
    const __m128i low_byte = _mm_set1_epi16(255);
    store(to, _mm_and_si128(low_, low_byte), _mm_and_si128(high_, low_byte));
  }
  [[gnu::always_inline]] void store_odds(std::uint8_t* to) const {
    store(to, _mm_srli_epi16(low_, 8), _mm_srli_epi16(high_, 8));
  }

 private:
  [[gnu::always_inline]] static __m128i load(const std::uint8_t* from) {
    const auto* at = reinterpret_cast<const __m128i*>(from);
    return kOutputs == 4 ? _mm_loadl_epi64(at) : _mm_loadu_si128(at);
  }
  [[gnu::always_inline]] static void store(std::uint8_t* to, __m128i low, __m128i high) {
    const __m128i bytes = _mm_packus_epi16(low, high);
    if constexpr (kOutputs == 16)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
    else if constexpr (kOutputs == 8)
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to), bytes);
    else
      _mm_storeu_si32(to, bytes);
  }

  __m128i low_, high_;
};

/// e0 o0 e1 o1 | e4 o4 e5 o5    e2 o2 e3 o3 | e6 o6 e7 o7   ->   e0 e1 e2 e3 | e4 e5 e6 e7,   o0 o1 ..
class SplitWords {
 public:
  using Element = std::uint32_t;
  static constexpr std::size_t kColumns = 8;

  [[gnu::always_inline]] explicit SplitWords(const std::uint32_t* from)
      : first_(halves(from, from + 8)), second_(halves(from + 4, from + 12)) {}
  [[gnu::always_inline]] void store_evens(std::uint32_t* to) const {
    _mm256_storeu_ps(reinterpret_cast<float*>(to), _mm256_shuffle_ps(first_, second_, 0x88));
  }
  [[gnu::always_inline]] void store_odds(std::uint32_t* to) const {
    _mm256_storeu_ps(reinterpret_cast<float*>(to), _mm256_shuffle_ps(first_, second_, 0xDD));
  }

 private:
  [[gnu::always_inline]] static __m256 halves(const std::uint32_t* low, const std::uint32_t* high) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(reinterpret_cast<const float*>(low))),
                                _mm_loadu_ps(reinterpret_cast<const float*>(high)), 1);
  }

  __m256 first_, second_;
};

/// The first `columns` columns of each parity, at least those of a vector, the last of which may overlap
/// others.
template <class Vector, class T>
void split_row(const SplitJob<T>& job, const T* from, T* even, T* odd, std::size_t columns) {
  constexpr std::size_t kColumns = Vector::kColumns;
  for (std::size_t c = 0;;) {
    const Vector vector(from + 2 * c);
    if (job.evens != 0) vector.store_evens(even + c);
    if (job.odds != 0) vector.store_odds(odd + c);
    if (c + kColumns >= columns) return;
    c = c + 2 * kColumns <= columns ? c + kColumns : columns - kColumns;
  }
}

/// Columns that vectors store, which read nothing but elements of the columns that the job names: the last
/// even column may be the last element of its row.
template <class T>
std::size_t whole_columns(const SplitJob<T>& job) {
  if (job.evens == 0) return job.odds;
  if (job.odds == 0) return job.evens - 1;
  return job.evens < job.odds ? job.evens : job.odds;
}

/// In the first of these vectors that a row has columns for.
template <class T, class Vector, class... Narrower>
void split_rows(const SplitJob<T>& job) {
  const std::size_t columns = whole_columns(job);
  const bool fit = columns >= Vector::kColumns;
  if constexpr (sizeof...(Narrower) > 0) {
    if (!fit) return split_rows<T, Narrower...>(job);
  }
  for_each_split_row(job, [&](const T* from, T* even, T* odd) {
    if (fit) split_row<Vector>(job, from, even, odd, columns);
    split_columns(job, from, even, odd, fit ? columns : 0);
  });
}

}  // namespace

void install_shift_avx2(PanelKernels& slots) {
  slots.shift_u8 = shift_u8;
  slots.shift_u32 = shift_u32;
  slots.split_u8 = split_rows<std::uint8_t, SplitBytes<16>, SplitBytes<8>, SplitBytes<4>>;
  slots.split_u32 = split_rows<std::uint32_t, SplitWords>;
}

}  // namespace gristmill
