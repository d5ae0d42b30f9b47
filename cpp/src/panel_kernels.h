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
///     row k of X       lives at  base + row_offset[k]          (channel c, tap kh, kw; or input feature)
///     lane p of a tile lives at  + run.source + (p - run.lane)  for the run of consecutive lanes that holds
///     p
///
/// so every packer is the same loop over rows and runs, whatever the kernel, stride, padding or dilation: the
/// driver has staged the input so that neighbouring output positions of a row of pixels are neighbours in
/// memory.
///
///     quad panel    [ceil(K/4)][lanes][4]   u8 or s8, four consecutive K of a lane side by side (dense int8,
///     1x4 blocks) planar panel  [K][lanes]              u8, s8 or f32, one row per K (f32, unstructured
///     sparse)
///
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

/// The layouts of panels.
enum class PanelKind : std::uint8_t { quads, planar_u8, planar_f32 };

struct PanelKernels {
  /// panel[ceil(rows/4)][lanes][4]; here and below, lanes is at most 64 and a multiple of 8,
  /// or of 4 at the NEON levels
  void (*pack_quads)(const PackJob& job, std::size_t lanes, std::uint8_t* panel);
  /// panel[rows][lanes]
  void (*pack_planar_u8)(const PackJob& job, std::size_t lanes, std::uint8_t* panel);
  void (*pack_planar_f32)(const PackJob& job, std::size_t lanes, float* panel);
  /// quads[i][j] = planes[j * plane_step + i] ^ flip for i < count and four planes j
  void (*interleave)(const std::uint8_t* planes, std::size_t plane_step, std::size_t count, std::uint8_t flip,
                     std::uint8_t* quads);
};

}  // namespace gristmill
