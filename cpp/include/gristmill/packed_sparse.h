#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gristmill/sparse.h"

/// Sparse weights in the form that kernels execute; see sparse_kernels.h for the three formats.
///
/// Packing depends on the level (lane block, K block, whether pairs of weights must be safe from saturation),
/// so a packed matrix belongs to the level it was packed for and is never stored in a file.
namespace gristmill {

struct SparseFormat;

enum class SparseKind : std::uint8_t { quads, blocks, singles };

/// Entries of every row, K block by K block, rows in the order in which they are executed.
struct PackedSparse {
  SparseKind kind{};
  std::size_t rows = 0, columns = 0;
  std::size_t k_block = 0, k_blocks = 0;
  std::vector<std::uint32_t> entry_start;  ///< [k_blocks][rows + 1]
  std::vector<std::uint32_t> row_order;    ///< [k_blocks][rows]
  std::vector<std::byte> entries;
  bool fours = false;  ///< entries are blocks or singles by fours

  /// Entries over all rows.
  std::size_t entry_count() const noexcept { return entry_start.empty() ? 0 : entry_start.back(); }
  /// Entries of the executed rows before this one.
  std::size_t entries_before(std::size_t row) const noexcept;
  /// Multiplications executed per lane, zero-filled ones included.
  std::size_t executed_macs() const noexcept {
    return entry_count() * (kind == SparseKind::singles ? 1 : 4) * (fours ? 4 : 1);
  }
  /// Memory taken by all tables.
  std::size_t bytes() const noexcept {
    return entries.size() + (entry_start.size() + row_order.size()) * sizeof(std::uint32_t);
  }
};

/// Packs s8 weights four nonzeros at a time. Explicit zeros are dropped.
PackedSparse pack_sparse_quads(const CsrMatrix<std::int8_t>& weights, const SparseFormat& format);

/// Packs s8 weights as aligned groups of four consecutive columns that hold a nonzero.
PackedSparse pack_sparse_blocks(const CsrMatrix<std::int8_t>& weights, const SparseFormat& format);

/// Packs f32 weights one by one. Explicit zeros are dropped, so 0 * inf is 0 in a sparse product.
PackedSparse pack_sparse_singles(const CsrMatrix<float>& weights, const SparseFormat& format);

}  // namespace gristmill
