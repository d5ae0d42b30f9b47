#pragma once

#include "sparse_kernels.h"

namespace gristmill {
namespace {

/// The loop over rows and K blocks that all sparse formats share at all levels. Format provides
///
///     Entry, Element          what a weight stream and a panel are made of
///     kLaneBlock, kBlockRows  lane block, and panel rows per K block
///     Sum                     the accumulators of one row over one lane block, zero when value-initialized:
///         void add(const Entry&, const Element* panel)
///         void finish(const SparseJob&, std::size_t channel)      epilogue and store
///
/// Format must live in an unnamed namespace, so that what is instantiated here stays in its file.
template <class Format>
struct SparseRows {
  using Sum = typename Format::Sum;
  using Entry = typename Format::Entry;
  using Element = typename Format::Element;

  static void multiply(const SparseJob& job) {
    for (std::size_t block = 0; block < job.k_blocks; ++block) {
      const bool first = block == 0, last = block + 1 == job.k_blocks;
      if (first && last) {
        multiply_block<true, true>(job, block);
      } else if (first) {
        multiply_block<true, false>(job, block);
      } else if (last) {
        multiply_block<false, true>(job, block);
      } else {
        multiply_block<false, false>(job, block);
      }
    }
  }

 private:
  template <bool first, bool last>
  static void multiply_block(const SparseJob& job, std::size_t block) {
    const auto* entries = static_cast<const Entry*>(job.entries);
    const auto* panel = static_cast<const Element*>(job.panel) + block * job.k_block * Format::kLaneBlock;
    const std::uint32_t* start = job.entry_start + block * (job.rows + 1);
    auto* waiting = static_cast<Sum*>(job.accumulators);
    for (std::size_t row = job.first_row; row < job.last_row; ++row) {
      Sum sum = first ? Sum{} : waiting[row];
      const Entry* const end = entries + start[row + 1];
      for (const Entry* entry = entries + start[row]; entry != end; ++entry) sum.add(*entry, panel);
      if (last) {
        sum.finish(job, job.row_order[row]);
      } else {
        waiting[row] = sum;
      }
    }
  }
};

template <class Format>
constexpr SparseFormat sparse_format(bool safe_pairs) {
  return {Format::kLaneBlock, Format::kBlockRows, safe_pairs, SparseRows<Format>::multiply};
}

}  // namespace
}  // namespace gristmill
