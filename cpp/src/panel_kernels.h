#pragma once

#include <cstddef>
#include <cstdint>

/// Panels: the activations of one tile of output positions, gathered once and used by every row of the
/// weights.
///
/// A convolution or linear layer is Y[M,P] = W[M,K] · X[K,P] with the output positions P (pixels, or batch
/// rows) in the vector lanes. X is never built; a tile of it is *packed* into a panel. What K means is folded
/// into two tables:
///
///     row k of X       lives at  base + row_offset[k]           (channel c, tap kh, kw; or input feature)
///     lane p of a tile lives at  + run.source + (p - run.lane)  for the run of lanes that holds p
///
/// so every packer is the same loop over rows and runs, whatever the kernel, stride, padding or dilation: the
/// driver has staged the input so that neighbouring output positions of a row of pixels are neighbours in
/// memory.
///
///     quad panel    [ceil(K/4)][lanes][4]   u8 or s8, four consecutive K of a lane side by side
///     planar panel  [K][lanes]              u8, s8 or f32, one row per K
///
/// Dense int8 weights and 1x4 blocks read quad panels, f32 weights and unstructured sparse ones planar ones.
/// `lanes` is the lane block of the kernel that reads the panel; a tile with fewer positions leaves the other
/// lanes of the panel with any values, and their results are not stored. Rows K..4*ceil(K/4) of a quad panel
/// hold any values: the weights there are zero.
namespace gristmill {

/// A run of consecutive lanes whose elements are consecutive in memory.
struct LaneRun {
  std::size_t source;   ///< elements from the start of a row's storage to the run's first element
  std::uint32_t lane;   ///< first lane
  std::uint32_t count;  ///< lanes in the run
};

/// What to gather. Runs are in ascending order of lane, do not overlap, and cover lanes 0..used without a
/// gap.
struct PackJob {
  const void* base;
  const std::size_t* row_offset;  ///< [rows], in elements
  std::size_t rows;               ///< K
  const LaneRun* runs;
  std::size_t run_count;
  /// Elements after the last one of all rows and runs that may be read without harm; kernels may also read
  /// what lies between the first and the last. With less than 63, rows near the end are packed more slowly.
  std::size_t readable_slack;
  /// Each byte is stored XOR this: 0x80 turns u8 into s8 and back. Byte panels only.
  std::uint8_t flip;
};

/// Calls visit(source, begin, end) for each stretch of lanes begin..end of the tile that lies within lanes
/// first..last and in one run, where `source` is of lane `begin`. Static, so that each level compiles its
/// own.
template <class Visit>
static inline void for_each_stretch(const PackJob& job, std::size_t first, std::size_t last, Visit visit) {
  for (std::size_t r = 0; r < job.run_count; ++r) {
    const LaneRun& run = job.runs[r];
    const std::size_t begin = run.lane > first ? run.lane : first;
    const std::size_t run_end = std::size_t{run.lane} + run.count;
    const std::size_t end = run_end < last ? run_end : last;
    if (begin < end) visit(run.source + (begin - run.lane), begin, end);
  }
}

/// The most taps of a ShiftJob: more masks would be a table of note.
constexpr std::size_t kMostShiftTaps = 128;
/// Bytes from the masks of a tap to those of the next: lanes that no panel has more of.
constexpr std::size_t kMaskStep = 128;

/// What to gather from planes whose rows are as long as those of the output: then every row of X is one
/// stretch of memory for all lanes, and padding is what the mask of its tap leaves out.
///
///     row k of X       is tap t = (first_row + k) mod taps of plane (first_row + k) / taps
///     lane p of it     lives at  base + plane * plane_step + tap_offset[t] + p,  or is `fill` if mask[p] = 0
struct ShiftJob {
  const void* base;
  std::size_t plane_step;            ///< in elements, as all distances here
  const std::ptrdiff_t* tap_offset;  ///< [taps]
  const std::uint8_t* masks;  ///< [taps][kMaskStep], aligned to 64: 0xFF or 0; 0 in lanes that are not used
  std::size_t taps;           ///< at most kMostShiftTaps
  std::size_t first_row, rows;
  std::ptrdiff_t readable_from, readable_to;  ///< from `base`: what may be read though no mask names it
  std::uint32_t fill;                         ///< the bits of an element, or one byte
  /// Each byte is stored XOR this, the fill too. Byte panels only.
  std::uint8_t flip;
};

/// Calls row(at, mask, out) for each row of the panel, where `at` is lane 0's distance from base.
template <class T, class Row>
static inline void for_each_shifted_row(const ShiftJob& job, std::size_t lanes, T* panel, Row row) {
  std::size_t tap = job.first_row % job.taps;
  auto plane = static_cast<std::ptrdiff_t>(job.first_row / job.taps * job.plane_step);
  for (T* const end = panel + job.rows * lanes; panel != end; panel += lanes) {
    row(plane + job.tap_offset[tap], job.masks + kMaskStep * tap, panel);
    if (++tap == job.taps) {
      tap = 0;
      plane += static_cast<std::ptrdiff_t>(job.plane_step);
    }
  }
}

/// Calls tap_rows(at, mask, out, count) for stretches of panel rows of one tap and consecutive planes: row i
/// of a stretch is of lanes from `at` + i * plane_step on, and goes to `out` + i * taps * lanes. A mask then
/// serves many rows, and the planes of a stretch stay in the first-level cache for all taps.
template <class T, class TapRows>
static inline void for_each_tap(const ShiftJob& job, std::size_t lanes, T* panel, TapRows tap_rows) {
  constexpr std::size_t kPlanes = 16;
  const std::size_t end = job.first_row + job.rows;
  for (std::size_t plane = job.first_row / job.taps; plane * job.taps < end; plane += kPlanes) {
    for (std::size_t tap = 0; tap < job.taps; ++tap) {
      const std::size_t first = plane * job.taps + tap < job.first_row ? plane + 1 : plane;
      const std::size_t past = tap < end ? (end - tap + job.taps - 1) / job.taps : 0;
      const std::size_t last = past < plane + kPlanes ? past : plane + kPlanes;
      if (first >= last) continue;
      tap_rows(static_cast<std::ptrdiff_t>(first * job.plane_step) + job.tap_offset[tap],
               job.masks + kMaskStep * tap, panel + (first * job.taps + tap - job.first_row) * lanes,
               last - first);
    }
  }
}

/// Packs one row and reads nothing but what its mask names.
template <class T>
static inline void pack_shifted_row(const ShiftJob& job, std::ptrdiff_t at, const std::uint8_t* mask,
                                    std::size_t lanes, T flip, T* out) {
  const T* base = static_cast<const T*>(job.base);
  for (std::size_t p = 0; p < lanes; ++p) {
    const T value = mask[p] != 0 ? base[at + static_cast<std::ptrdiff_t>(p)] : static_cast<T>(job.fill);
    out[p] = static_cast<T>(value ^ flip);
  }
}

/// Whether all lanes of a row may be read.
static inline bool is_readable(const ShiftJob& job, std::ptrdiff_t at, std::size_t lanes) {
  return at >= job.readable_from && at + static_cast<std::ptrdiff_t>(lanes) <= job.readable_to;
}

/// Rows first .. last of a stretch of `rows` rows, plane_step apart from `at` on, of which all lanes may be
/// read.
struct RowRange {
  std::size_t first, last;
};
static inline RowRange readable_rows(const ShiftJob& job, std::ptrdiff_t at, std::size_t lanes,
                                     std::size_t rows) {
  const auto row = [&](std::size_t i) { return at + static_cast<std::ptrdiff_t>(i * job.plane_step); };
  RowRange range{0, rows};
  while (range.first < rows && !is_readable(job, row(range.first), lanes)) ++range.first;
  while (range.last > range.first && !is_readable(job, row(range.last - 1), lanes)) --range.last;
  return range;
}

/// Rows to part into those of even and those of odd columns.
template <class T>
struct SplitJob {
  const T* source;
  std::size_t rows, source_step;
  T *even, *odd;
  std::size_t evens, odds;  ///< columns of each that are stored, which may be none
  std::size_t out_step;
};

/// Splits a row's columns from `first` on.
template <class T>
static inline void split_columns(const SplitJob<T>& job, const T* from, T* even, T* odd, std::size_t first) {
  for (std::size_t i = first; i < job.evens; ++i) even[i] = from[2 * i];
  for (std::size_t i = first; i < job.odds; ++i) odd[i] = from[2 * i + 1];
}

/// Calls row(source, even, odd) for each row.
template <class T, class Row>
static inline void for_each_split_row(const SplitJob<T>& job, Row row) {
  for (std::size_t r = 0; r < job.rows; ++r)
    row(job.source + r * job.source_step, job.even + r * job.out_step, job.odd + r * job.out_step);
}

/// The layouts of panels.
enum class PanelKind : std::uint8_t { quads, planar_u8, planar_f32 };

struct PanelKernels {
  /// panel[ceil(rows/4)][lanes][4]; here and below, lanes is a multiple of 8, or of 4 at the
  /// NEON levels, and at most 64 at those of AVX-512, kMaskStep at the others
  void (*pack_quads)(const PackJob& job, std::size_t lanes, std::uint8_t* panel);
  /// panel[rows][lanes]
  void (*pack_planar_u8)(const PackJob& job, std::size_t lanes, std::uint8_t* panel);
  void (*pack_planar_f32)(const PackJob& job, std::size_t lanes, float* panel);
  /// panel[rows][lanes] again, from planes
  void (*shift_u8)(const ShiftJob& job, std::size_t lanes, std::uint8_t* panel);
  /// The same for elements of four bytes, floats or quads, which are moved as they are.
  void (*shift_u32)(const ShiftJob& job, std::size_t lanes, std::uint32_t* panel);
  /// quads[i][j] = planes[j * plane_step + i] ^ flip for i < count and four planes j
  void (*interleave)(const std::uint8_t* planes, std::size_t plane_step, std::size_t count, std::uint8_t flip,
                     std::uint8_t* quads);
  /// even[r][i] = source[r][2 * i] and odd[r][i] = source[r][2 * i + 1]
  void (*split_u8)(const SplitJob<std::uint8_t>& job);
  void (*split_u32)(const SplitJob<std::uint32_t>& job);
};

}  // namespace gristmill
