#pragma once

#include <cstddef>
#include <cstdint>

#include "epilogue_kernels.h"

/// Sparse weight kernels: rows of nonzero weights times one panel, ending in the same epilogue as dense
/// kernels.
///
/// Three formats, each a stream of entries per row. An entry names its panel rows (K) by their distance from
/// the first one of the K block: in units of eight elements of the panel, which processors scale for nothing,
/// where 16 bits hold it.
///
///     quads     any four nonzeros of a row      planar panel [K][lanes] u8      4 x (u16, s8) = 12 bytes
///               or, spread                                    4 x u16 + 10 x s8 = 18 bytes
///     blocks    four consecutive, aligned K     quad panel [K/4][lanes][4] u8   u16 + 4 x s8  =  6 bytes
///     singles   one nonzero                     planar panel [K][lanes] f32     u32 + f32     =  8 bytes
///
/// A quad needs no structure in the weights: its four panel rows are loaded and interleaved in registers,
/// which costs eight shuffles per four multiply-adds and leaves nothing zero-filled but the last quad of a
/// row. Where one port has all shuffles and another one multiplies as fast, that port is what the others wait
/// for. Spread quads are interleaved by pairs only: a dword then holds two rows of two lanes, of which one
/// multiply-add, whose other weights are zeros, adds up one lane. That makes four shuffles per eight
/// multiply-adds, and both ports are busy for six cycles rather than one for eight. A block finds its operand
/// interleaved already, by the packer.
///
/// Levels with registers for it multiply two rows in turns: no multiply-add then waits for the one before,
/// and the epilogue of two rows is under way while the next two are added up. Their entries alternate in
/// memory, zeros filling up the shorter row, which is one stream to read and to fetch ahead. Blocks and
/// singles come by fours there, u16 + 4 bytes each, for loads are what limits them: four offsets are one
/// load, and so are four weights.
///
/// K may be cut into blocks so that the panel rows of one block stay in the first-level cache while all rows
/// of the weights pass over them; between blocks the accumulators wait in memory. Rows are executed in order
/// of falling length (row_order), because a loop whose trip count changes with every row is mispredicted with
/// every row. They are so in every K block, but only within chunks: executed rows [64 i, 64 i + 64) are the
/// same ones in all K blocks, so that chunks can be given to different threads. Many rows are ordered in four
/// bands, so that threads that take some each write to stretches of the output with few common cache lines.
namespace gristmill {

inline constexpr std::size_t kOffsetUnit = 8;
inline constexpr std::size_t kRowChunk = 64;

struct SparseQuad {
  std::uint16_t offset[4];
  std::int8_t weight[4];
};

/// The same for levels that multiply pairs of a quad by themselves: any dword of `weight` that begins with a
/// zero pair or with a pair of weights holds one pair, and zeros beside it.
struct SparseSpreadQuad {
  std::uint16_t offset[4];
  std::int8_t weight[10];  ///< 0 0 w0 w1 0 0 w2 w3 0 0
};

struct SparseBlock {
  std::uint16_t offset;  ///< of the group of four
  std::int8_t weight[4];
};

struct SparseSingle {
  std::uint32_t offset;  ///< in elements
  float weight;
};

/// Four blocks or singles, of two rows by turns or of one.
struct SparseFours {
  std::uint16_t offset[4];
  std::uint8_t weight[16];  ///< four s8, or an f32, of each
};

/// One call runs the executed rows first_row..last_row of the weights over one panel of one lane block, or
/// over those of its K blocks that the panel holds: what is left off at the end of a block is taken up by the
/// call with the next one.
struct SparseJob {
  const void* entries;
  const std::uint32_t* entry_start;  ///< [k_blocks][rows + 1]: where the entries of each executed row begin
  const std::uint32_t* row_order;    ///< [k_blocks][rows]: the output channel of each executed row
  std::size_t rows, k_blocks;
  std::size_t k_block;                  ///< panel rows per K block
  std::size_t first_block, last_block;  ///< the K blocks to run
  std::size_t first_row, last_row;      ///< executed rows, whole chunks
  const void* panel;                    ///< of the first block on
  std::size_t lanes;                    ///< valid lanes; the panel has the format's full lane block
  void* accumulators;      ///< scratch [channels][sum_bytes], aligned to 64; unused when k_blocks is 1
  const void* epilogue;    ///< EpilogueS8 or EpilogueF32, by output channel
  void* out;               ///< element (channel 0, lane 0)
  std::size_t out_stride;  ///< elements from one channel of the output to the next
  /// Quads of at most half a lane block: the panel is [K][lane block / 2] u16 after a byte that is zero.
  bool words = false;
  bool far = false;  ///< entries are likely to be beyond the second-level cache: fetch them early
};

/// How one format runs at one level.
struct SparseFormat {
  std::size_t lane_block;
  /// Panel rows that fit the first-level cache, a multiple of 4.
  std::size_t k_block;
  /// Accumulators of one row over one lane block.
  std::size_t sum_bytes;
  /// Both pairs of weights of an entry, (0, 1) and (2, 3), must have opposite signs or |w0| + |w1| <= 128:
  /// the level multiplies u8 by s8 in pairs with 16-bit saturation, which such pairs cannot reach.
  bool safe_pairs;
  void (*multiply)(const SparseJob& job);
  bool spread = false;  ///< entries are SparseSpreadQuad
  /// Executed rows 2i and 2i + 1, if there is the latter, have equally many entries, zeros filling up, and
  /// these alternate.
  bool row_pairs = false;
  /// Entries are SparseFours, of row pairs. Where the second row of a pair has none, which is where it starts
  /// at the pair's end, they are the first one's alone. The weights that fill up are zeros of blocks, but
  /// parts of singles: 0 * inf is no number.
  bool fours = false;
  /// Jobs may have panels of words, which take less than jobs of more than half a lane block.
  bool half_in_words = false;
};

struct SparseKernels {
  SparseFormat quads, blocks, singles;
  /// Quads as other processors of the level run them, if there are two ways.
  SparseFormat spare_quads;
};

}  // namespace gristmill
