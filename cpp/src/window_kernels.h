#pragma once

#include <cstddef>
#include <cstdint>

/// Sparse weights times one row of activations, or a few: lanes run along the rows of the weights.
///
/// A *step* multiplies up to `depth` nonzeros of each of `rows` neighbouring rows of the weights (a *group*).
/// Their activations come from one *window* of x, so small that a permutation of registers gathers them:
///
///     x      . . . [ window ............................ ] . . .      begins at base, a multiple of `stride`
///     index       row 0: 3 17 18 40   row 1: 5 6 9 -   ...            into the window, plus `first_index`;
///                                                                     - is kNoElement
///     weight      row 0: w w w w      row 1: w w w 0   ...
///
/// The window slides along K from step to step, as fast as the row that lags behind allows. Rows that have
/// had all their nonzeros within the window wait, so that rows need not have equally many in any part of K,
/// only in all. The larger the window, the less is wasted and the more a permutation costs:
///
///     steps executed for each that is full, at 70, 80, 90, 95 % zeros
///     16 rows of 4, window 128, stride 64        1.1   1.1   1.25  1.5
///     16 rows of 4, window 256, stride 64        1.05  1.1   1.15  1.25
///     16 rows of 2, window 32, stride 1          1.2   1.3   1.65  2.3      (in safe pairs)
///
/// A single row of activations uses each weight once. If no cache of the core's own holds the weights, their
/// bytes are what it waits for, and twice the permutations are hidden behind it.
///
/// Short strides waste less, but windows that are not aligned cost more to load. Several inputs share what is
/// read of the weights, as long as all of them stay in the first-level cache.
namespace gristmill {

/// The index of a place in a step that holds no nonzero. Its weight is 0, and an x in f32, which might be
/// infinite, is not looked at; one in u8 is, where windows are longer.
inline constexpr std::uint8_t kNoElement = 0x80;

/// One call multiplies groups first_group..last_group by `inputs` rows of activations. Outputs of one input
/// are consecutive.
struct WindowJob {
  const void* entries;         ///< [steps] { index u8[rows * depth], weight[rows * depth] }
  const std::uint32_t* base;   ///< [steps], in elements of x
  const std::uint32_t* start;  ///< [groups + 1]: the first step of each group
  std::size_t first_group, last_group;
  std::size_t weight_rows;  ///< of all groups
  const void* x;            ///< element 0 of the first input; whole windows are readable
  std::size_t inputs;       ///< 1 to WindowFormat::at_once
  std::size_t x_stride;     ///< elements from one input to the next
  const void* epilogue;     ///< EpilogueS8 or EpilogueF32
  void* out;                ///< element (input 0, channel 0)
  std::size_t out_stride;   ///< elements from one input's outputs to the next
};

/// How one element type runs at one level.
struct WindowFormat {
  std::size_t rows, depth;     ///< of a step
  std::size_t window, stride;  ///< in elements; a window is at most 128, of bytes 256
  std::size_t at_once;         ///< the most inputs of a job
  std::uint8_t first_index;    ///< the index of a window's first element
  bool safe_pairs;             ///< as in SparseFormat
  std::size_t most_inputs;     ///< with more, panels are faster
  void (*multiply)(const WindowJob& job);
};

struct WindowKernels {
  WindowFormat s8, f32;
  WindowFormat s8_wide;  ///< of a single row and many weights, if that is another one
  /// The one of other processors of the level, whose permutations cost less beside their loads.
  WindowFormat spare_s8_wide;
};

}  // namespace gristmill
