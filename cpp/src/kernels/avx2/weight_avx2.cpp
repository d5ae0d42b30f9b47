#include <immintrin.h>

#include "kernels/couple_order.h"
#include "kernels/unroll.h"
#include "weight_kernels.h"

namespace gristmill {
namespace {

constexpr std::size_t kWidth = 32;

__m256i load(const std::int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

__m128i load_eight(const std::int8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }

std::int64_t add_lanes(__m256i sums) {
  const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  return _mm_extract_epi64(two, 0) + _mm_extract_epi64(two, 1);
}

int least_of(__m256i bytes) {
  const __m128i sixteen = _mm_min_epu8(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  const __m128i words =
      _mm_min_epu8(_mm_srli_epi16(sixteen, 8), _mm_and_si128(sixteen, _mm_set1_epi16(0xFF)));
  return _mm_cvtsi128_si32(_mm_minpos_epu16(words)) & 0xFF;
}

/// Weights are lifted by 128, so that the sum of differences that bytes have from 0 and from 128 is what is
/// wanted.
WeightTotals total(const std::int8_t* weights, std::size_t count) {
  const __m256i lift = _mm256_set1_epi8(-128), zero = _mm256_setzero_si256();
  __m256i sums = zero, magnitudes = zero, least = lift;
  std::size_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    const __m256i lifted = _mm256_xor_si256(load(weights + i), lift);
    sums = _mm256_add_epi64(sums, _mm256_sad_epu8(lifted, zero));
    magnitudes = _mm256_add_epi64(magnitudes, _mm256_sad_epu8(lifted, lift));
    least = _mm256_min_epu8(least, lifted);
  }
  WeightTotals totals{add_lanes(sums) - 128 * static_cast<std::int64_t>(i), add_lanes(magnitudes),
                      static_cast<std::int8_t>(least_of(least) - 128)};
  for (; i < count; ++i) {
    totals.sum += weights[i];
    totals.magnitude += weights[i] < 0 ? -int{weights[i]} : weights[i];
    if (weights[i] < totals.least) totals.least = weights[i];
  }
  return totals;
}

std::size_t count_nonzero(const std::int8_t* weights, std::size_t count) {
  constexpr std::size_t kRun = 255 * kWidth;  // of which each byte of a vector counts as many as it holds
  std::size_t zeros = 0, i = 0;
  while (i + kWidth <= count) {
    const std::size_t end = count - i < kRun ? count : i + kRun;
    __m256i found = _mm256_setzero_si256();
    for (; i + kWidth <= end; i += kWidth)
      found = _mm256_sub_epi8(found, _mm256_cmpeq_epi8(load(weights + i), _mm256_setzero_si256()));
    zeros += static_cast<std::size_t>(add_lanes(_mm256_sad_epu8(found, _mm256_setzero_si256())));
  }
  for (; i < count; ++i) zeros += weights[i] == 0;
  return count - zeros;
}

/// Eight taps at a time, and those left over one by one.
void interleave(const std::int8_t* from, std::size_t quads, std::size_t taps, std::int8_t* to) {
  for (std::size_t quad = 0; quad < quads; ++quad, from += 4 * taps, to += 4 * taps) {
    std::size_t tap = 0;
    for (; tap + 8 <= taps; tap += 8) {
      const std::int8_t* at = from + tap;
      const __m128i low = _mm_unpacklo_epi8(load_eight(at), load_eight(at + taps));
      const __m128i high = _mm_unpacklo_epi8(load_eight(at + 2 * taps), load_eight(at + 3 * taps));
      auto* vector = reinterpret_cast<__m128i*>(to + 4 * tap);
      _mm_storeu_si128(vector, _mm_unpacklo_epi16(low, high));
      _mm_storeu_si128(vector + 1, _mm_unpackhi_epi16(low, high));
    }
    for (; tap < taps; ++tap)
      for (std::size_t c = 0; c < 4; ++c) to[4 * tap + c] = from[c * taps + tap];
  }
}

__m128i load_group(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

void store_group(void* p, __m128i group) { _mm_storeu_si128(static_cast<__m128i*>(p), group); }

/// Sums are what they lack to 126, as signed bytes, and [row][pair][sign]: a comparison then takes those of
/// second groups from memory.
struct CouplesAvx2 {
  class First {
   public:
    explicit First(const std::uint8_t* sums) {
      const __m128i whole = _mm_sub_epi8(_mm_set1_epi8(126), load_group(sums));
      const __m128i most = _mm_set1_epi8(static_cast<char>(kCoupleSum + 1));
      least_ = _mm_sub_epi8(_mm_min_epu8(whole, most), _mm_set1_epi8(kCoupleSum - 126));
    }
    std::size_t rows(const std::uint8_t* second) const { return rows_of(exceeding(second)); }
    std::uint32_t search(const std::uint8_t* sums, std::uint64_t taken, const RowCosts& costs) const {
      alignas(kWidth) __m128i exceeding[kCandidates / 4];
      const unsigned fit = fitting(sums, taken, exceeding);
      if (fit != 0) return static_cast<std::uint32_t>(__builtin_ctz(fit));
      return search_on(sums, taken, costs, exceeding);
    }

   private:
    static constexpr std::uint32_t kBatch = 16;

    /// Beyond the first batch.
    [[gnu::noinline]] std::uint32_t search_on(const std::uint8_t* sums, std::uint64_t taken,
                                              const RowCosts& costs, __m128i* exceeding) const {
      for (std::uint32_t i = kBatch; i < kCandidates; i += kBatch) {
        const unsigned fit = fitting(sums + i * kSums, taken >> i, exceeding + i / 4);
        if (fit != 0) return i + static_cast<std::uint32_t>(__builtin_ctz(fit));
      }
      return cheapest(reinterpret_cast<const __m256i*>(exceeding), taken, costs);
    }
    /// Those of kBatch candidates that no row exceeds with, as bits, and rows_of_four of them all.
    [[gnu::always_inline]] unsigned fitting(const std::uint8_t* sums, std::uint64_t taken,
                                            __m128i* exceeding) const {
      unroll<4>([&](auto i) GRISTMILL_INLINE { exceeding[i] = rows_of_four(sums + i * 4 * kSums); });
      const auto fit = [&](int i) { return _mm_cmpeq_epi32(exceeding[i], _mm_setzero_si128()); };
      const __m128i all = _mm_packs_epi16(_mm_packs_epi32(fit(0), fit(1)), _mm_packs_epi32(fit(2), fit(3)));
      return static_cast<unsigned>(_mm_movemask_epi8(all)) & ~static_cast<unsigned>(taken);
    }
    __m128i exceeding(const std::uint8_t* sums) const { return _mm_cmpgt_epi8(least_, load_group(sums)); }
    /// In the four bytes of each of four groups, which rows exceed with it: zero where one does not.
    __m128i rows_of_four(const std::uint8_t* sums) const {
      // Four bytes of each row become one; what is not zero stays that.
      const __m128i low = _mm_packs_epi16(exceeding(sums), exceeding(sums + kSums));
      const __m128i high = _mm_packs_epi16(exceeding(sums + 2 * kSums), exceeding(sums + 3 * kSums));
      return _mm_packs_epi16(low, high);
    }
    /// A cost and the number of a candidate are compared as one number, which 16 bits hold; those that are
    /// taken have the greatest.
    static std::uint32_t cheapest(const __m256i* exceeding, std::uint64_t taken, const RowCosts& costs) {
      constexpr int kNumbers = 64;
      const __m256i cost = _mm256_set1_epi32(static_cast<int>(costs.bytes())), one = _mm256_set1_epi8(1);
      const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), last = _mm256_set1_epi32(0xFFFF);
      __m256i best = last, number = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
      for (std::size_t i = 0; i < kCandidates; i += 8, ++exceeding) {
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_min_epu8(*exceeding, one), cost);
        const __m256i sum = _mm256_madd_epi16(pairs, _mm256_set1_epi16(kNumbers));
        const __m256i which = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(taken >> i)), bits);
        const __m256i never = _mm256_and_si256(_mm256_cmpeq_epi32(which, bits), last);
        best = _mm256_min_epu32(best, _mm256_or_si256(_mm256_add_epi32(sum, number), never));
        number = _mm256_add_epi32(number, _mm256_set1_epi32(8));
      }
      const __m128i eight = _mm_packus_epi32(_mm256_castsi256_si128(best), _mm256_extracti128_si256(best, 1));
      return static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(eight))) % kNumbers;
    }

    __m128i least_;  // of the numbers of another group
  };

  static std::size_t rows_of(__m128i bytes) {
    const __m128i rows = _mm_cmpeq_epi32(bytes, _mm_setzero_si128());
    return static_cast<std::size_t>(_mm_movemask_ps(_mm_castsi128_ps(rows))) ^ 15;
  }

  static void sum_up(const std::int8_t* weights, std::uint8_t* sums) {
    const __m128i w = load_group(weights), zero = _mm_setzero_si128(), one = _mm_set1_epi8(1);
    const __m128i positive = _mm_maddubs_epi16(_mm_max_epi8(w, zero), one);
    const __m128i negative = _mm_maddubs_epi16(_mm_max_epi8(_mm_sub_epi8(zero, w), zero), one);
    const __m128i both = _mm_or_si128(positive, _mm_slli_epi16(negative, 8));
    store_group(sums, _mm_sub_epi8(_mm_set1_epi8(126), both));
  }

  static void copy(const std::int8_t* from, std::int8_t* to) { store_group(to, load_group(from)); }

  /// Positive weights in the low half and magnitudes of negative ones in the high half; words are pairs. What
  /// is kept is what there is room for, from the last of a sum to its first.
  static CutWeights* cut(const Couple& couple, std::int8_t* to, CutWeights* cut) {
    const __m128i zero = _mm_setzero_si128();
    __m256i room = _mm256_set1_epi16(kCoupleSum);
    const auto take = [&](__m256i weights) GRISTMILL_INLINE {
      const __m256i kept = _mm256_min_epi16(weights, room);
      room = _mm256_sub_epi16(room, kept);
      return kept;
    };
    alignas(16) std::int32_t rest[2 * kCoupledRows];
    std::size_t rows = 0;
    for (std::size_t i = 2; i-- > 0;) {
      const __m128i w = load_group(couple.weights[i]);
      const __m256i signs = _mm256_inserti128_si256(_mm256_castsi128_si256(w), _mm_sub_epi8(zero, w), 1);
      const __m256i both = _mm256_max_epi8(signs, _mm256_setzero_si256());
      const __m256i odd = take(_mm256_srli_epi16(both, 8));
      const __m256i even = take(_mm256_and_si256(both, _mm256_set1_epi16(0xFF)));
      const __m256i kept = _mm256_or_si256(even, _mm256_slli_epi16(odd, 8));
      const __m128i left = _mm_sub_epi8(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
      store_group(to + i * 4 * kCoupledRows, left);
      const __m128i over = _mm_sub_epi8(w, left);
      store_group(rest + i * kCoupledRows, over);
      rows |= rows_of(over) << i * kCoupledRows;
    }
    for (; rows != 0; rows &= rows - 1, ++cut) {
      const auto at = static_cast<std::size_t>(__builtin_ctzll(rows));
      cut->group = couple.groups[at / kCoupledRows];
      cut->row = static_cast<std::uint16_t>(at % kCoupledRows);
      __builtin_memcpy(cut->weights, rest + at, 4);
    }
    return cut;
  }
};

}  // namespace

void install_weight_avx2(WeightKernels& slots) {
  slots = {total, count_nonzero, interleave, couple_in_order<CouplesAvx2>};
}

}  // namespace gristmill
