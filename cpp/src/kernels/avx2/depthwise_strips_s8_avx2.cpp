#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "byte_pairs_avx2.h"
#include "depthwise_kernels.h"
#include "epilogue_avx2.h"
#include "kernels/strided.h"
#include "kernels/unroll.h"

/// Exact int8 sums in 16 bits, of bytes as they are in memory.
///
/// A *unit* is 16 columns of two rows of the output, one in each half of a register. vpmaddubsw multiplies
/// neighbouring bytes, so a kernel row l c r takes two of them, c = c0 + c1, for every other output pixel;
/// the same of bytes one further on are the pixels between:
///
///     columns     -1  0 | 1  2 | ..      0  1 | 2  3 | ..
///     weights      l c0   l c0          c1  r  c1  r            pixels 0, 2, ..
///
/// With a stride of two these are already all pixels, and the others of the unit follow 16 bytes later.
///
/// 16 bits hold a vpmaddubsw if its weights have opposite signs or add up to a magnitude of 128 at most, and
/// the splitting of c sees to that. They hold the sum of two, somewhere between 255 times its negative
/// weights and 255 times its positive ones, if all four magnitudes add up to 257 at most, which makes 2^16
/// values: it starts where these are the values of s16, and bias takes that back. A kernel's left half rows
/// are summed with the right halves of the rows below, which with some c fits 8 kernels of 9 where weights
/// are normally distributed. Others are split into two kernels of half the weights.
namespace gristmill {
namespace {

constexpr std::size_t kColumns = 16;
constexpr int kRows = 3, kGroupLimit = 257;

/// A kernel that fits 16 bits. Group g is the left part of row g and the right part of the row below it.
struct FittingKernel {
  std::uint32_t left[kRows], right[kRows];  // l c0 l c0 and c1 r c1 r as bytes
  std::int32_t start[kRows];                // of the sum of a group
};

struct PackedKernel {
  std::uint32_t count;
  std::int32_t start;  // of all sums
  FittingKernel kernel[2];
};

/// Packs one if that fits with c0 of each row that many quarters of c.
bool try_split(const int (&w)[kRows][3], const int (&quarters)[kRows], FittingKernel& to) {
  int positive[kRows] = {}, negative[kRows] = {};
  const auto add_pair = [&](int group, int a, int b) {
    for (const int weight : {a, b}) (weight < 0 ? negative : positive)[group] += magnitude(weight);
    return may_pair(a, b);
  };
  for (int row = 0; row < kRows; ++row) {
    const int l = w[row][0], c0 = w[row][1] * quarters[row] / 4, c1 = w[row][1] - c0, r = w[row][2];
    if (!add_pair(row, l, c0) || !add_pair((row + kRows - 1) % kRows, c1, r)) return false;
    to.left[row] = pair_bytes(l, c0);
    to.right[row] = pair_bytes(c1, r);
  }
  for (int g = 0; g < kRows; ++g) {
    if (positive[g] + negative[g] > kGroupLimit) return false;
    const bool symmetric = positive[g] <= kPairLimit && negative[g] <= kPairLimit;
    to.start[g] = symmetric ? 0 : 255 * negative[g] - 0x8000;
  }
  return true;
}

bool try_splits(const int (&w)[kRows][3], FittingKernel& to) {
  constexpr int kQuarters[] = {2, 4, 0, 3, 1};
  for (int a : kQuarters)
    for (int b : kQuarters)
      for (int c : kQuarters)
        if (try_split(w, {a, b, c}, to)) return true;
  return false;
}

void pack_strips_s8(const std::int8_t* weights, void* packed) {
  auto& to = *static_cast<PackedKernel*>(packed);
  int whole[kRows][3], halves[2][kRows][3];
  for (int i = 0; i < 3 * kRows; ++i) {
    const int weight = whole[i / 3][i % 3] = weights[i];
    halves[0][i / 3][i % 3] = weight / 2;
    halves[1][i / 3][i % 3] = weight - weight / 2;
  }
  to.count = 1;
  if (!try_splits(whole, to.kernel[0])) {
    to.count = 2;
    for (int i = 0; i < 2; ++i) try_splits(halves[i], to.kernel[i]);
  }
  to.start = 0;
  for (std::uint32_t i = 0; i < to.count; ++i)
    for (std::int32_t start : to.kernel[i].start) to.start += start;
}

/// Where a unit is in its rows: columns -1 and `columns` are padding.
enum class Part { first, middle, last, whole };

/// What a kernel row reads of two rows of the input: the left and the right part for both words of a pixel.
struct RowTaps {
  __m256i left[2], right[2];
};

/// A row of the input, or of padding, whose columns are all the same one.
struct InputRow {
  const std::uint8_t* columns;
  std::size_t mask;  // of column numbers
};

/// Loads from a column of two rows on.
struct RowPair {
  const std::uint8_t *low, *high;

  [[gnu::always_inline]] RowPair(const InputRow& a, const InputRow& b, std::size_t column)
      : low(a.columns + (column & a.mask)), high(b.columns + (column & b.mask)) {}

  [[gnu::always_inline]] __m256i load(std::ptrdiff_t at) const {
    const auto* a = reinterpret_cast<const __m128i*>(low + at);
    const auto* b = reinterpret_cast<const __m128i*>(high + at);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(a)), _mm_loadu_si128(b), 1);
  }
};

/// Of a plane narrower than a unit: the bytes of its rows, and what is read behind them.
struct RowMasks {
  __m256i bytes[2], padding[2];

  [[gnu::always_inline]] __m256i masked(__m256i x, int half) const {
    return _mm256_or_si256(_mm256_and_si256(x, bytes[half]), padding[half]);
  }
};

template <int kStride, Part kPart>
[[gnu::always_inline]] inline RowTaps load_taps(const RowPair& rows, __m256i padding, const RowMasks& masks) {
  constexpr bool kFirst = kPart == Part::first || kPart == Part::whole;
  RowTaps taps;
  __m256i centre = rows.load(0);
  if (kPart == Part::whole) centre = masks.masked(centre, 0);
  taps.left[0] = kFirst ? _mm256_alignr_epi8(centre, padding, 15) : rows.load(-1);
  taps.right[0] = centre;
  if constexpr (kStride == 1) {
    constexpr bool kLast = kPart == Part::last || kPart == Part::whole;
    taps.left[1] = centre;
    taps.right[1] = kLast ? _mm256_alignr_epi8(padding, centre, 1) : rows.load(1);
  } else if constexpr (kPart == Part::whole) {
    taps.right[1] = masks.masked(rows.load(16), 1);
    taps.left[1] = _mm256_alignr_epi8(taps.right[1], centre, 15);
  } else {
    taps.left[1] = rows.load(15);
    taps.right[1] = kPart == Part::last ? _mm256_alignr_epi8(padding, taps.left[1], 1) : rows.load(16);
  }
  return taps;
}

/// A FittingKernel in all lanes.
struct KernelVectors {
  __m256i left[kRows], right[kRows], start[kRows];

  void broadcast(const FittingKernel& kernel) {
    unroll<kRows>([&](auto i) GRISTMILL_INLINE {
      left[i] = _mm256_set1_epi32(static_cast<int>(kernel.left[i]));
      right[i] = _mm256_set1_epi32(static_cast<int>(kernel.right[i]));
      start[i] = _mm256_set1_epi16(static_cast<std::int16_t>(kernel.start[i]));
    });
  }
};

/// Sums of a unit, from `acc` on, for taps(row): 0 to 3 and 4 to 7 of the first word's pixels, then of the
/// second one's.
template <class Taps>
[[gnu::always_inline]] inline void add_unit(Taps taps, const KernelVectors& kernel, __m256i (&acc)[4]) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum[2][kRows];
  unroll<kRows>([&](auto row) GRISTMILL_INLINE {
    constexpr int above = (row + kRows - 1) % kRows;
    const RowTaps x = taps(row);
    unroll<2>([&](auto word) GRISTMILL_INLINE {
      const __m256i left = _mm256_maddubs_epi16(x.left[word], kernel.left[row]);
      const __m256i right = _mm256_maddubs_epi16(x.right[word], kernel.right[row]);
      sum[word][row] = _mm256_add_epi16(row == kRows - 1 ? sum[word][row] : kernel.start[row], left);
      sum[word][above] = _mm256_add_epi16(row == 0 ? kernel.start[above] : sum[word][above], right);
    });
  });
  __m256i two[4], one[4];
  unroll<2>([&](auto word) GRISTMILL_INLINE {
    const auto& x = sum[word];
    two[2 * word] = _mm256_unpacklo_epi16(x[0], x[1]);
    two[2 * word + 1] = _mm256_unpackhi_epi16(x[0], x[1]);
    one[2 * word] = _mm256_unpacklo_epi16(x[2], x[2]);
    one[2 * word + 1] = _mm256_unpackhi_epi16(x[2], x[2]);
  });
  unroll<4>([&](auto i) GRISTMILL_INLINE {
    acc[i] = _mm256_add_epi32(acc[i], _mm256_srai_epi32(one[i], 16));
    acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(two[i], ones));
  });
}

/// The planes of a job.
template <int kStride>
class StripPlanes {
 public:
  explicit StripPlanes(const DepthwiseStripsJob& job)
      : job_(job),
        epilogue_(*static_cast<const EpilogueS8*>(job.epilogue)),
        out_rows_(strided<kStride>(job.rows)),
        out_columns_(strided<kStride>(job.columns)),
        element_(epilogue_.type == OutputType::u8 || epilogue_.type == OutputType::s8 ? 1 : 4),
        padding_(_mm256_set1_epi8(static_cast<char>(job.padding))),
        bytes_(epilogue_) {
    for (int half = 0; half < 2; ++half) {
      alignas(32) std::uint8_t bytes[32];
      for (std::size_t i = 0; i < 32; ++i) bytes[i] = 16 * half + i % 16 < job.columns ? 0xFF : 0;
      masks_.bytes[half] = _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes));
      masks_.padding[half] = _mm256_andnot_si256(masks_.bytes[half], padding_);
    }
    for (std::uint8_t& byte : padding_row_) byte = job.padding;
  }

  void convolve() {
    const std::size_t in_plane = job_.rows * job_.columns, out_plane = out_rows_ * out_columns_;
    for (plane_ = 0; plane_ < job_.planes; ++plane_) {
      source_ = static_cast<const std::uint8_t*>(job_.source) + plane_ * in_plane;
      out_at_ = plane_ * out_plane;
      const auto& kernel = static_cast<const PackedKernel*>(job_.weights)[plane_];
      kernels_ = kernel.count;
      for (std::uint32_t i = 0; i < kernels_; ++i) kernel_[i].broadcast(kernel.kernel[i]);
      bias_ = static_cast<std::uint32_t>(epilogue_.bias[plane_]) - static_cast<std::uint32_t>(kernel.start);
      copy_tail((job_.planes - 1 - plane_) * in_plane + job_.readable_slack);
      // Two rows at a time, of which the last ones may overlap those before.
      for (std::size_t row = 0; row < out_rows_; row += 2)
        convolve_rows(out_rows_ > 1 && row + 2 > out_rows_ ? out_rows_ - 2 : row);
    }
  }

 private:
  /// Rows of the input that units narrower than a vector would read beyond the plane, with `readable` bytes
  /// behind it, are copied. Other units read nothing beyond their rows.
  void copy_tail(std::size_t readable) {
    constexpr std::size_t kReach = kStride * kColumns;
    const std::size_t bytes = job_.rows * job_.columns;
    tail_row_ = job_.rows;
    if (out_columns_ > kColumns) return;
    while (tail_row_ > 0 && (tail_row_ - 1) * job_.columns + kReach > bytes + readable) --tail_row_;
    const std::size_t start = tail_row_ * job_.columns;
    for (std::size_t i = start; i < bytes; ++i) tail_[i - start] = source_[i];
  }

  [[gnu::always_inline]] InputRow input_row(std::size_t row) const {
    if (row >= job_.rows) return {padding_row_ + 16, 0};
    if (row >= tail_row_) return {tail_ + (row - tail_row_) * job_.columns, ~std::size_t{0}};
    return {source_ + row * job_.columns, ~std::size_t{0}};
  }

  /// Rows `row` and `row` + 1 of the output.
  void convolve_rows(std::size_t row) const {
    InputRow rows[kRows + kStride];
    unroll<kRows + kStride>(
        [&](auto k) GRISTMILL_INLINE { rows[k] = input_row(kStride * row + k - std::size_t{1}); });
    if (out_columns_ <= kColumns) return convolve_unit<Part::whole>(rows, row, 0);
    const std::size_t last = out_columns_ - kColumns;
    convolve_unit<Part::first>(rows, row, 0);
    for (std::size_t first = kColumns; first < last; first += kColumns)
      convolve_unit<Part::middle>(rows, row, first);
    const bool padded = kStride == 1 || job_.columns % 2 != 0;
    padded ? convolve_unit<Part::last>(rows, row, last) : convolve_unit<Part::middle>(rows, row, last);
  }

  template <Part kPart>
  [[gnu::always_inline]] void convolve_unit(const InputRow (&rows)[kRows + kStride], std::size_t row,
                                            std::size_t first) const {
    const auto taps = [&](auto k) GRISTMILL_INLINE {
      return load_taps<kStride, kPart>(RowPair(rows[k], rows[k + kStride], kStride * first), padding_,
                                       masks_);
    };
    __m256i acc[4];
    unroll<4>([&](auto i) GRISTMILL_INLINE { acc[i] = _mm256_set1_epi32(static_cast<int>(bias_)); });
    for (std::uint32_t i = 0; i < kernels_; ++i) add_unit(taps, kernel_[i], acc);
    const float scale = element_ == 1 ? epilogue_.scale[plane_] : 1.0f;
    if (element_ == 1 && scale < 1.0f && scale > -1.0f)
      store_bytes(in_order(bytes_(acc, _mm256_set1_ps(scale))), row, first);
    else
      store_any(acc, row, first);
  }

  [[gnu::always_inline]] static __m256i in_order(__m256i bytes) {
    if (kStride == 2) return bytes;
    const __m256i order =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    return _mm256_shuffle_epi8(bytes, order);
  }

  /// Where a unit is wider than the plane, the next row overwrites what is beyond this one.
  [[gnu::always_inline]] void store_bytes(__m256i bytes, std::size_t row, std::size_t first) const {
    const std::size_t end = job_.planes * out_rows_ * out_columns_;
    const auto store = [&](__m128i half, std::size_t at) GRISTMILL_INLINE {
      auto* out = static_cast<std::uint8_t*>(job_.out) + at;
      at + kColumns <= end ? _mm_storeu_si128(reinterpret_cast<__m128i*>(out), half)
                           : store_first(half, out, out_columns_);
    };
    const std::size_t at = out_at_ + row * out_columns_ + first;
    store(_mm256_castsi256_si128(bytes), at);
    if (row + 1 < out_rows_) store(_mm256_extracti128_si256(bytes, 1), at + out_columns_);
  }

  /// Any type of output and any scale.
  [[gnu::noinline]] void store_any(const __m256i (&acc)[4], std::size_t row, std::size_t first) const {
    std::int32_t sums[2][kColumns];
    for (int i = 0; i < 4; ++i) {
      alignas(32) std::int32_t lanes[8];
      _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), acc[i]);
      for (int lane = 0; lane < 8; ++lane) {
        const int word = i / 2, pixel = 4 * (i % 2) + lane % 4;
        sums[lane / 4][kStride == 1 ? 2 * pixel + word : 8 * word + pixel] = lanes[lane];
      }
    }
    OneChannelAvx2 channel(epilogue_, plane_);
    channel.bias_all = _mm256_setzero_si256();
    for (std::size_t i = 0; i < 2 && row + i < out_rows_; ++i) {
      const auto* from = reinterpret_cast<const __m256i*>(sums[i]);
      const __m256i ordered[2] = {_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)};
      EpilogueAvx2(epilogue_).store<2>(ordered, channel, job_.out, out_at_ + (row + i) * out_columns_ + first,
                                       out_columns_ < kColumns ? out_columns_ : kColumns);
    }
  }

  const DepthwiseStripsJob& job_;
  const EpilogueS8& epilogue_;
  const std::size_t out_rows_, out_columns_, element_;
  const __m256i padding_;
  const UnpackedBytesAvx2 bytes_;
  RowMasks masks_;
  std::uint8_t padding_row_[64], tail_[64];
  std::size_t plane_ = 0, out_at_ = 0, tail_row_ = 0;
  const std::uint8_t* source_ = nullptr;
  KernelVectors kernel_[2];
  std::uint32_t kernels_ = 0, bias_ = 0;
};

/// Staging copies, which small planes and strides make dear; but it wastes no columns.
bool strips_pay(std::size_t out_rows, std::size_t out_columns, std::size_t stride) {
  constexpr std::size_t kLeast = 100, kLeastColumns = 10;
  if (out_rows * out_columns < kLeast) return false;
  if (out_columns <= kColumns) return out_columns >= kLeastColumns;
  const std::size_t computed = (out_columns + kColumns - 1) / kColumns * kColumns;
  return stride == 1 ? 9 * computed <= 10 * out_columns : 3 * computed <= 4 * out_columns;
}

void strips_s8(const DepthwiseStripsJob& job) {
  job.stride == 1 ? StripPlanes<1>(job).convolve() : StripPlanes<2>(job).convolve();
}

}  // namespace

void install_depthwise_strips_s8_avx2(DepthwiseKernels& slots) {
  slots.strips_s8 = {strips_pay, sizeof(PackedKernel), pack_strips_s8, strips_s8};
}

}  // namespace gristmill
