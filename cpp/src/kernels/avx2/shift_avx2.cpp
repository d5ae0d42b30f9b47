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

template <int kOutputs>
[[gnu::always_inline]] inline __m128i load_words(const std::uint8_t* from) {
  const auto* at = reinterpret_cast<const __m128i*>(from);
  return kOutputs == 4 ? _mm_loadl_epi64(at) : _mm_loadu_si128(at);
}

template <int kOutputs>
[[gnu::always_inline]] inline void store_columns(std::uint8_t* to, __m128i low, __m128i high) {
  const __m128i bytes = _mm_packus_epi16(low, high);
  if constexpr (kOutputs == 16)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
  else if constexpr (kOutputs == 8)
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), bytes);
  else
    _mm_storeu_si32(to, bytes);
}

/// The first `columns` columns of each parity, at least kOutputs of them, the last of which may overlap
/// others:
///
///     e0 o0 e1 o1 ..   ->   e0 e1 ..   the low bytes of words,   o0 o1 ..   the high ones
template <int kOutputs>
void split_row(const std::uint8_t* from, std::uint8_t* even, std::uint8_t* odd, std::size_t columns,
               const SplitJob& job) {
  const __m128i low_byte = _mm_set1_epi16(255);
  for (std::size_t c = 0;;) {
    const __m128i low = load_words<kOutputs>(from + 2 * c);
    const __m128i high = kOutputs == 16 ? load_words<kOutputs>(from + 2 * c + 16) : low;
    if (job.evens != 0)
      store_columns<kOutputs>(even + c, _mm_and_si128(low, low_byte), _mm_and_si128(high, low_byte));
    if (job.odds != 0) store_columns<kOutputs>(odd + c, _mm_srli_epi16(low, 8), _mm_srli_epi16(high, 8));
    if (c + kOutputs >= columns) return;
    c = c + 2 * kOutputs <= columns ? c + kOutputs : columns - kOutputs;
  }
}

/// Columns that vectors store, which read nothing but bytes of the columns that the job names: the last even
/// column may be the last byte of its row.
std::size_t whole_columns(const SplitJob& job) {
  if (job.evens == 0) return job.odds;
  if (job.odds == 0) return job.evens - 1;
  return job.evens < job.odds ? job.evens : job.odds;
}

void split_rows(const SplitJob& job) {
  const std::size_t columns = whole_columns(job), vectors = columns < 4 ? 0 : columns;
  const auto split = columns >= 16 ? split_row<16> : columns >= 8 ? split_row<8> : split_row<4>;
  for_each_split_row(job, [&](const std::uint8_t* from, std::uint8_t* even, std::uint8_t* odd) {
    if (vectors != 0) split(from, even, odd, columns, job);
    split_columns(job, from, even, odd, vectors);
  });
}

}  // namespace

void install_shift_avx2(PanelKernels& slots) {
  slots.shift_u8 = shift_u8;
  slots.shift_u32 = shift_u32;
  slots.split_rows = split_rows;
}

}  // namespace gristmill
