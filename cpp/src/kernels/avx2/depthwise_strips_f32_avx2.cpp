#include <immintrin.h>

#include <cstddef>

#include "depthwise_kernels.h"
#include "f32_avx2.h"
#include "kernels/strided.h"
#include "kernels/unroll.h"

/// Strips that end after a band of rows, unlike those of kernels/depthwise_strips_f32.h, which walk down the
/// whole plane: their weights, sums, taps, masks and the constants of the epilogue are more than sixteen
/// registers hold, and the columns of a large plane more than a small L1 cache. A kernel goes along a band
/// from strip to strip, and what it reads of a row stays in the cache for the next one:
///
///     band of 2 rows, stride 1       input       is added to the sums of
///                                    row -1      row 0 of the output, if it is no padding
///     row 0  ...[ strip ]-> ...      row  0      rows 0 and 1
///     row 1  ...[ strip ]-> ...      row  1      rows 0 and 1
///                                    row  2      row 1, if it is no padding
///
/// Strips load whole vectors as they are. At the edges of the plane lanes whose tap is padding are cleared;
/// and where padding may be no memory, vectors are put together from what is.
///
/// The sums of an output pixel add up in the same order in every band.
namespace gristmill {
namespace {

constexpr std::size_t kWidth = F32x8::kWidth;

constexpr std::size_t smaller(std::size_t a, std::size_t b) { return a < b ? a : b; }

/// What the three taps of a kernel row read, for use(tap, vector). Loads::before and Loads::after are for the
/// vectors with the first and the last element of all.
template <int kStride>
struct Taps {
  /// The columns of a strip that the lanes of its vectors belong to.
  static __m256i order() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
  [[gnu::always_inline]] static __m256 in_order(__m256 x) { return x; }

  template <class Loads, class Use>
  [[gnu::always_inline]] static void load(const float* from, const Loads& loads, Use use) {
    use(Index<0>{}, loads.keep_left(loads.before(from - 1)));
    use(Index<1>{}, _mm256_loadu_ps(from));
    use(Index<2>{}, loads.keep_right(loads.after(from + 1)));
  }
};

/// Shuffling works within halves. Sums alone are put in order:
///
///     a0 a1 a2 a3 | a4 a5 a6 a7    b0 b1 b2 b3 | b4 b5 b6 b7    ->    a0 a2 b0 b2 | a4 a6 b4 b6
template <>
struct Taps<2> {
  static __m256i order() { return _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7); }
  [[gnu::always_inline]] static __m256 in_order(__m256 x) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xD8));
  }

  template <class Loads, class Use>
  [[gnu::always_inline]] static void load(const float* from, const Loads& loads, Use use) {
    const __m256 before = loads.before(from - 1);
    use(Index<0>{}, loads.keep_left(_mm256_shuffle_ps(before, _mm256_loadu_ps(from + 7), 0x88)));
    const __m256 a = _mm256_loadu_ps(from), b = loads.after(from + 8);
    use(Index<1>{}, _mm256_shuffle_ps(a, b, 0x88));
    use(Index<2>{}, loads.keep_right(_mm256_shuffle_ps(a, b, 0xDD)));
  }
};

/// Of a strip without padding.
struct WholeLoads {
  [[gnu::always_inline]] static __m256 before(const float* p) { return _mm256_loadu_ps(p); }
  [[gnu::always_inline]] static __m256 after(const float* p) { return _mm256_loadu_ps(p); }
  [[gnu::always_inline]] static __m256 keep_left(__m256 x) { return x; }
  [[gnu::always_inline]] static __m256 keep_right(__m256 x) { return x; }
};

/// Lanes that are no padding, of the left taps of the first strip and of the right taps of the last one.
struct EdgeMasks {
  __m256 left, right;
};

/// Of a strip with padding before its first column, behind its last one, or both. In what may be the first
/// row of all, or the last, that is not read.
template <bool kBefore, bool kBehind>
struct EdgeLoads {
  const EdgeMasks& masks;
  bool first_row, last_row;

  [[gnu::always_inline]] __m256 before(const float* p) const {
    if (!kBefore || !first_row) return _mm256_loadu_ps(p);
    const __m128 low = _mm_castsi128_ps(_mm_slli_si128(_mm_castps_si128(_mm_loadu_ps(p + 1)), 4));
    return _mm256_insertf128_ps(_mm256_castps128_ps256(low), _mm_loadu_ps(p + 4), 1);
  }
  [[gnu::always_inline]] __m256 after(const float* p) const {
    if (!kBehind || !last_row) return _mm256_loadu_ps(p);
    const __m128 high = _mm_castsi128_ps(_mm_srli_si128(_mm_castps_si128(_mm_loadu_ps(p + 3)), 4));
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), high, 1);
  }
  [[gnu::always_inline]] __m256 keep_left(__m256 x) const {
    return kBefore ? _mm256_and_ps(x, masks.left) : x;
  }
  [[gnu::always_inline]] __m256 keep_right(__m256 x) const {
    return kBehind ? _mm256_and_ps(x, masks.right) : x;
  }
};

/// Some rows of a plane of the output.
struct PlaneRows {
  std::size_t rows;
  const float* source;  // the centre of the first output pixel
  std::size_t columns;
  bool above, below;  // whether the first row has one of the input above it, and the last one below
  std::size_t last;   // where the last strip starts, which overlaps the one before
  bool behind;        // whether there is padding behind it
  EdgeMasks masks;
  const float *weights, *bias, *low, *high;
  float* out;
  std::size_t out_columns;
};

/// Bands of kRows rows. The last one overlaps the one before.
template <int kStride, int kRows>
class BandKernel {
 public:
  /// For at least kRows rows.
  static void convolve(const PlaneRows& plane) {
    BandKernel kernel(plane);
    for (std::size_t begin = 0; begin < plane.rows; begin += kRows) {
      const std::size_t row = smaller(begin, plane.rows - kRows);
      kernel.source_ = plane.source + kStride * row * plane.columns;
      kernel.out_ = plane.out + row * plane.out_columns;
      kernel.convolve_band(plane, plane.above || row > 0, plane.below || row + kRows < plane.rows);
    }
  }

 private:
  /// Rows of the input from the one above the first centre to the one below the last.
  static constexpr int kInputRows = (kRows - 1) * kStride + 3;

  [[gnu::always_inline]] explicit BandKernel(const PlaneRows& plane)
      : columns_(plane.columns), out_columns_(plane.out_columns) {
    unroll<9>([&](auto i) GRISTMILL_INLINE { weights_[i] = _mm256_broadcast_ss(plane.weights + i); });
  }

  [[gnu::always_inline]] void convolve_band(const PlaneRows& plane, bool above, bool below) const {
    const auto convolve_edge = [&](std::size_t first, auto before, auto behind) GRISTMILL_INLINE {
      convolve_strip(plane, above, below, first, [&](auto r) GRISTMILL_INLINE {
        return EdgeLoads<before != 0, behind != 0>{plane.masks, r == 0 || (r == 1 && !above),
                                                   r == kInputRows - 1 || (r == kInputRows - 2 && !below)};
      });
    };
    std::size_t end = plane.last + kWidth;
    if (plane.behind) {
      if (plane.last == 0) return convolve_edge(0, Index<1>{}, Index<1>{});
      convolve_edge(plane.last, Index<0>{}, Index<1>{});
      end = plane.last;
    }
    convolve_edge(0, Index<1>{}, Index<0>{});
    for (std::size_t first = kWidth; first < end; first += kWidth)
      convolve_strip(plane, above, below, smaller(first, plane.last),
                     [](auto) GRISTMILL_INLINE { return WholeLoads{}; });
  }

  /// Where a vector is wider than the plane, the next row overwrites what is beyond this one. Processors
  /// do not foresee stores that alternate between the rows of a band: those of the next one are fetched.
  template <class LoadsOfRow>
  [[gnu::always_inline]] void convolve_strip(const PlaneRows& plane, bool above, bool below,
                                             std::size_t first, LoadsOfRow loads_of_row) const {
    __m256 sum[kRows];
    unroll<kRows>([&](auto o) GRISTMILL_INLINE { sum[o] = _mm256_setzero_ps(); });
    const float* from = source_ + kStride * first - columns_;
    unroll<kInputRows>([&](auto r) GRISTMILL_INLINE {
      if ((r > 0 || above) && (r < kInputRows - 1 || below)) {
        Taps<kStride>::load(from, loads_of_row(r), [&](auto tap, __m256 x) GRISTMILL_INLINE {
          unroll<kRows>([&](auto o) GRISTMILL_INLINE {
            constexpr int k = r - o * kStride;
            if constexpr (k >= 0 && k < 3) sum[o] = _mm256_fmadd_ps(x, weights_[3 * k + tap], sum[o]);
          });
        });
      }
      from += columns_;
    });
    const __m256 bias = _mm256_broadcast_ss(plane.bias);
    const __m256 low = _mm256_broadcast_ss(plane.low), high = _mm256_broadcast_ss(plane.high);
    float* to = out_ + first;
    unroll<kRows>([&](auto o) GRISTMILL_INLINE {
      const __m256 result = F32x8::clamp(_mm256_add_ps(sum[o], bias), low, high);
      _mm256_storeu_ps(to, Taps<kStride>::in_order(result));
      _mm_prefetch(reinterpret_cast<const char*>(to + kRows * out_columns_), _MM_HINT_T0);
      to += out_columns_;
    });
  }

  const float* source_ = nullptr;
  float* out_ = nullptr;
  const std::size_t columns_, out_columns_;
  __m256 weights_[9];
};

/// The planes of a job.
template <int kStride>
class StripPlanes {
 public:
  explicit StripPlanes(const DepthwiseStripsJob& job)
      : job_(job),
        epilogue_(*static_cast<const EpilogueF32*>(job.epilogue)),
        out_rows_(strided<kStride>(job.rows)),
        out_columns_(strided<kStride>(job.columns)) {
    plane_.columns = job.columns;
    plane_.last = out_columns_ - smaller(out_columns_, kWidth);
    plane_.behind = kStride == 1 || job.columns % 2 != 0;
    plane_.masks = {all_but(0), all_but(out_columns_ - 1 - plane_.last)};
    plane_.low = &epilogue_.low;
    plane_.high = &epilogue_.high;
    plane_.out_columns = out_columns_;
  }

  void convolve() {
    for (std::size_t m = 0; m < job_.planes; ++m) {
      plane_.source = static_cast<const float*>(job_.source) + m * job_.rows * job_.columns;
      plane_.weights = static_cast<const float*>(job_.weights) + 9 * m;
      plane_.bias = epilogue_.bias + m;
      plane_.out = static_cast<float*>(job_.out) + m * out_rows_ * out_columns_;
      has_room(job_.planes - 1 - m) ? convolve_rows(plane_, 0, out_rows_) : convolve_copies();
    }
  }

 private:
  /// Seven fit planes of 7 * 2^n rows. That not all weights have registers then costs less than sums that
  /// wait for each other.
  static constexpr std::size_t kMostRows = 7;

  static __m256 all_but(std::size_t column) {
    const __m256i is_it =
        _mm256_cmpeq_epi32(Taps<kStride>::order(), _mm256_set1_epi32(static_cast<int>(column)));
    return _mm256_castsi256_ps(_mm256_xor_si256(is_it, _mm256_set1_epi32(-1)));
  }

  /// Rows `row` to `row` + `rows` of the output, which `plane` has.
  void convolve_rows(PlaneRows& plane, std::size_t row, std::size_t rows) const {
    plane.rows = rows;
    plane.above = row > 0;
    plane.below = kStride * (row + rows - 1) + 1 < job_.rows;
    const auto convolved = [&](std::size_t band) { return (rows + band - 1) / band * band; };
    if (rows < 4) return BandKernel<kStride, 1>::convolve(plane);
    if (rows < kMostRows || convolved(4) < convolved(kMostRows))
      return BandKernel<kStride, 4>::convolve(plane);
    BandKernel<kStride, kMostRows>::convolve(plane);
  }

  /// Whether vectors that start in a plane end within the job, with so many planes behind it.
  bool has_room(std::size_t planes) const {
    return out_columns_ >= kWidth || (planes * job_.rows * job_.columns >= kStride * kWidth &&
                                      planes * out_rows_ * out_columns_ >= kWidth);
  }

  /// A plane narrower than a vector: some rows after the other, copied to where there is room behind them.
  void convolve_copies() const {
    constexpr std::size_t kStep = kStride * kWidth + 2;
    for (std::size_t row = 0, rows; row < out_rows_; row += rows) {
      rows = smaller(kMostRows, out_rows_ - row);
      float source[(kMostRows - 1) * kStride + 3][kStep] = {}, out[kMostRows][kWidth];
      const std::size_t centre = kStride * row, begin = centre - (row > 0 ? 1 : 0);
      const std::size_t end = smaller(kStride * (row + rows - 1) + 2, job_.rows);
      for (std::size_t r = begin; r < end; ++r)
        for (std::size_t i = 0; i < job_.columns; ++i)
          source[r + 1 - centre][i + 1] = plane_.source[r * job_.columns + i];
      PlaneRows copy = plane_;
      copy.source = source[1] + 1;
      copy.columns = kStep;
      copy.out = out[0];
      copy.out_columns = kWidth;
      convolve_rows(copy, row, rows);
      for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t i = 0; i < out_columns_; ++i) plane_.out[(row + r) * out_columns_ + i] = out[r][i];
    }
  }

  const DepthwiseStripsJob& job_;
  const EpilogueF32& epilogue_;
  const std::size_t out_rows_, out_columns_;
  PlaneRows plane_{};
};

void strips_f32(const DepthwiseStripsJob& job) {
  job.stride == 1 ? StripPlanes<1>(job).convolve() : StripPlanes<2>(job).convolve();
}

}  // namespace

void install_depthwise_strips_f32_avx2(DepthwiseKernels& slots) { slots.strips_f32 = strips_f32; }

}  // namespace gristmill
