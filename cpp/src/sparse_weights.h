#pragma once

#include <cstddef>
#include <vector>

#include "gristmill/packed_sparse.h"
#include "kernel_table.h"
#include "packed_weights.h"

namespace gristmill {

/// The panel that a format reads.
constexpr PanelKind panel_kind(SparseKind kind) {
  switch (kind) {
    case SparseKind::quads:
      return PanelKind::planar_u8;
    case SparseKind::blocks:
      return PanelKind::quads;
    case SparseKind::singles:
      break;
  }
  return PanelKind::planar_f32;
}

/// A job of these weights with what they determine; panel, rows, epilogue and output are the caller's.
SparseJob sparse_job(const PackedSparse& packed);

/// Sparse weights of a layer: one packed matrix for each group, in one format.
class SparseWeights {
 public:
  /// Rows are the output channels of all groups, in order. Throws Error(argument) if the kind is not one of
  /// T, and Error(limit) if a row's sum of magnitudes lets an accumulator overflow.
  SparseWeights(const CsrMatrix<std::int8_t>& weights, std::size_t groups, SparseKind kind,
                const KernelTable& kernels);
  SparseWeights(const CsrMatrix<float>& weights, std::size_t groups, SparseKind kind,
                const KernelTable& kernels);

  SparseKind kind() const { return kind_; }
  bool is_f32() const { return kind_ == SparseKind::singles; }
  const SparseFormat& format() const { return *format_; }
  std::size_t rows() const { return groups_.front().rows; }  ///< per group
  std::size_t k() const { return groups_.front().columns; }
  std::size_t channels() const { return rows() * groups_.size(); }
  const PackedSparse& group(std::size_t index) const { return groups_[index]; }
  const WeightSums& sums() const { return sums_; }

  std::size_t bytes() const;
  std::size_t executed_macs() const;  ///< of one lane
  const char* variant_name() const;

  /// The first executed row of one of `parts` parts of about equal work, which is the first of a chunk.
  std::size_t part_start(std::size_t group, std::size_t part, std::size_t parts) const;

 private:
  std::vector<PackedSparse> groups_;
  SparseKind kind_;
  const SparseFormat* format_;
  WeightSums sums_;
};

}  // namespace gristmill
