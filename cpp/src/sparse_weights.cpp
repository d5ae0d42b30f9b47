#include "sparse_weights.h"

#include <algorithm>

#include "checked_size.h"
#include "gristmill/error.h"

namespace gristmill {
namespace {

/// What storing a row costs, in entries.
constexpr std::size_t kStoreCost = 4;

std::size_t work_before(const PackedSparse& packed, std::size_t row) {
  return packed.entries_before(row) + kStoreCost * row;
}

/// Packs each group's rows by themselves.
template <class T, class Pack>
std::vector<PackedSparse> pack_groups(const CsrMatrix<T>& weights, std::size_t groups,
                                      const SparseFormat& format, const Pack& pack) {
  std::vector<PackedSparse> packed;
  if (groups == 1) {
    packed.push_back(pack(weights, format));
    return packed;
  }
  const std::size_t rows = weights.rows() / groups;
  for (std::size_t g = 0; g < groups; ++g)
    packed.push_back(pack(weights.rows_between(g * rows, (g + 1) * rows), format));
  return packed;
}

}  // namespace

SparseJob sparse_job(const PackedSparse& packed) {
  SparseJob job{};
  job.entries = packed.entries.data();
  job.entry_start = packed.entry_start.data();
  job.row_order = packed.row_order.data();
  job.rows = packed.rows;
  job.k_blocks = packed.k_blocks;
  job.k_block = packed.k_block;
  job.last_block = packed.k_blocks;
  return job;
}

SparseWeights::SparseWeights(const CsrMatrix<std::int8_t>& weights, std::size_t groups, SparseKind kind,
                             const KernelTable& kernels)
    : kind_(kind), format_(kind == SparseKind::quads ? &kernels.sparse.quads : &kernels.sparse.blocks) {
  if (kind == SparseKind::singles)
    throw Error(ErrorKind::argument, "format",
                "'singles' is for float32 weights; choose 'quads' or 'blocks'");
  sums_ = WeightSums(weights);
  groups_ = pack_groups(weights, groups, *format_,
                        kind == SparseKind::quads ? pack_sparse_quads : pack_sparse_blocks);
}

SparseWeights::SparseWeights(const CsrMatrix<float>& weights, std::size_t groups, SparseKind kind,
                             const KernelTable& kernels)
    : kind_(kind), format_(&kernels.sparse.singles) {
  if (kind != SparseKind::singles)
    throw Error(ErrorKind::argument, "format", "float32 weights have one sparse format, 'singles'");
  groups_ = pack_groups(weights, groups, *format_, pack_sparse_singles);
}

std::size_t SparseWeights::bytes() const {
  std::size_t total = 0;
  for (const PackedSparse& packed : groups_) total += packed.bytes();
  return total;
}

std::size_t SparseWeights::executed_macs() const {
  std::size_t total = 0;
  for (const PackedSparse& packed : groups_) total += packed.executed_macs();
  return total;
}

const char* SparseWeights::variant_name() const {
  switch (kind_) {
    case SparseKind::quads:
      return "s8 sparse quads";
    case SparseKind::blocks:
      return "s8 sparse 1x4 blocks";
    case SparseKind::singles:
      break;
  }
  return "f32 sparse";
}

std::size_t SparseWeights::part_start(std::size_t group, std::size_t part, std::size_t parts) const {
  const PackedSparse& packed = groups_[group];
  const std::size_t wanted = work_before(packed, packed.rows) * part / parts;
  std::size_t low = 0, high = packed.rows;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    work_before(packed, middle) < wanted ? low = middle + 1 : high = middle;
  }
  if (part == parts) return packed.rows;
  return std::min((low + kRowChunk / 2) / kRowChunk * kRowChunk, packed.rows);
}

}  // namespace gristmill
