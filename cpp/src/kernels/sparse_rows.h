#pragma once

#include "kernels/unroll.h"
#include "sparse_kernels.h"

namespace gristmill {
namespace {

/// The loop over rows and K blocks that all sparse formats share at all levels. Format provides
///
///     Entry, Element          what a weight stream and a panel are made of
///     kLaneBlock, kBlockRows  lane block, and panel rows per K block
///     kSets                   1, or 2 for a format whose additions would wait for each other: two sets of
///                             accumulators then take entries in turns
///     Sum                     one set of the accumulators of one row over one lane block, zero when
///                             value-initialized
///         void add(const Entry&, const Element* panel)
///         void add(const Sum&)            where there are two
///     kRowPairs               optional: true for two rows at a time, of which one is stored while the other
///                             is added up
///     kInterleaved            optional: true where the entries of two rows alternate, as row_pairs of
///                             SparseFormat has it; the epilogue of two rows comes after the next two
///     kFours                  optional: true for entries that are SparseFours
///     add_pair<far>           optional: adds such entries [entry, end) to the sums of two rows, and
///                             fetches those that follow if they are far
///     add_run                 optional: adds entries [entry, end) of a row to its sets
///     Finish                  what is constant over the rows of a job: the epilogue
///         Finish(const SparseJob&)
///         void start(Sum&, std::size_t channel) const     optional: what sums begin with, else zero
///         void expect(std::size_t channel) const          optional: a row will be stored soon
///         void store(const Sum&, std::size_t channel) const
///
/// Format must live in an unnamed namespace, so that what is instantiated here stays in its file.
template <class Format>
struct SparseRows {
  using Sum = typename Format::Sum;
  using Entry = typename Format::Entry;
  using Element = typename Format::Element;

  static void multiply(const SparseJob& job) {
    for (std::size_t block = job.first_block; block < job.last_block; ++block) {
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
  /// The rows of one K block.
  template <bool first, bool last>
  struct Rows {
    const Entry* entries;
    const Element* panel;
    const std::uint32_t *start, *order;
    Sum* waiting;
    std::size_t last_row;
    const typename Format::Finish finish;

    Rows(const SparseJob& job, std::size_t block)
        : entries(static_cast<const Entry*>(job.entries)),
          panel(static_cast<const Element*>(job.panel) +
                (block - job.first_block) * job.k_block * Format::kLaneBlock),
          start(job.entry_start + block * (job.rows + 1)),
          order(job.row_order + block * job.rows),
          waiting(static_cast<Sum*>(job.accumulators)),
          last_row(job.last_row),
          finish(job) {}

    [[gnu::always_inline]] void begin(Sum& sum, std::size_t row) const {
      if constexpr (last && requires { finish.expect(row); }) {
        constexpr std::size_t kAhead = 4;
        if (row + kAhead < last_row) finish.expect(order[row + kAhead]);
      }
      if constexpr (!first) {
        constexpr std::size_t kAhead = 2;
        if (row + kAhead < last_row) {
          for (std::size_t line = 0; line < sizeof(Sum); line += 64)
            __builtin_prefetch(reinterpret_cast<const char*>(waiting + order[row + kAhead]) + line, 1);
        }
        sum = waiting[order[row]];
      } else if constexpr (requires { finish.start(sum, order[row]); }) {
        finish.start(sum, order[row]);
      } else {
        sum = Sum{};
      }
    }

    [[gnu::always_inline]] void add_up(Sum (&sum)[Format::kSets], std::size_t row) const {
      begin(sum[0], row);
      add_run(sum, entries + start[row], entries + start[row + 1], panel);
      if constexpr (Format::kSets == 2) sum[0].add(sum[1]);
    }

    [[gnu::always_inline]] void leave(const Sum& sum, std::size_t row) const {
      if constexpr (last) {
        finish.store(sum, order[row]);
      } else {
        waiting[order[row]] = sum;
      }
    }
  };

  template <bool first, bool last>
  static void multiply_block(const SparseJob& job, std::size_t block) {
    const Rows<first, last> rows(job, block);
    std::size_t row = job.first_row;
    if constexpr (requires { requires Format::kInterleaved; }) {
      row = job.far ? multiply_pairs<true>(rows, row) : multiply_pairs<false>(rows, row);
    } else if constexpr (requires { requires Format::kRowPairs; }) {
      for (; row + 2 <= job.last_row; row += 2) {
        Sum sum[Format::kSets] = {}, next[Format::kSets] = {};
        rows.add_up(sum, row);
        rows.add_up(next, row + 1);
        rows.leave(sum[0], row);
        rows.leave(next[0], row + 1);
      }
    }
    for (; row < job.last_row; ++row) {
      Sum sum[Format::kSets] = {};
      rows.add_up(sum, row);
      rows.leave(sum[0], row);
    }
  }

  /// Pairs of rows from `row` on; returns the row after them.
  template <bool far, bool first, bool last>
  [[gnu::always_inline]] static std::size_t multiply_pairs(const Rows<first, last>& rows, std::size_t row) {
    if (row + 2 > rows.last_row) return row;
    Sum before[2];
    const auto add_up = [&](Sum(&sum)[2]) GRISTMILL_INLINE {
      rows.begin(sum[0], row);
      rows.begin(sum[1], row + 1);
      if constexpr (requires { requires Format::kFours; }) {
        if (rows.start[row + 1] == rows.start[row + 2]) {
          Sum alone[1] = {sum[0]};
          add_run(alone, rows.entries + rows.start[row], rows.entries + rows.start[row + 1], rows.panel);
          sum[0] = alone[0];
          row += 2;
          return;
        }
      }
      add_pair<far>(sum[0], sum[1], rows.entries + rows.start[row], rows.entries + rows.start[row + 2],
                    rows.panel);
      row += 2;
    };
    add_up(before);
    while (row + 2 <= rows.last_row) {
      Sum sum[2];
      add_up(sum);
      rows.leave(before[0], row - 4);
      rows.leave(before[1], row - 3);
      before[0] = sum[0];
      before[1] = sum[1];
    }
    rows.leave(before[0], row - 2);
    rows.leave(before[1], row - 1);
    return row;
  }

  template <bool far>
  [[gnu::always_inline]] static void add_pair(Sum& a, Sum& b, const Entry* entry, const Entry* end,
                                              const Element* panel) {
    if constexpr (requires { Format::template add_pair<far>(a, b, entry, end, panel); }) {
      Format::template add_pair<far>(a, b, entry, end, panel);
    } else {
      for (; entry != end; entry += 2) {
        a.add(entry[0], panel);
        b.add(entry[1], panel);
      }
    }
  }

  [[gnu::always_inline]] static void add_run(Sum (&sum)[Format::kSets], const Entry* entry, const Entry* end,
                                             const Element* panel) {
    if constexpr (requires { Format::add_run(sum, entry, end, panel); }) {
      Format::add_run(sum, entry, end, panel);
    } else {
      for (; end - entry >= 2; entry += 2) {
        sum[0].add(entry[0], panel);
        sum[Format::kSets - 1].add(entry[1], panel);
      }
      if (entry != end) sum[0].add(entry[0], panel);
    }
  }
};

template <class Format>
constexpr SparseFormat sparse_format(bool safe_pairs,
                                     void (*multiply)(const SparseJob&) = SparseRows<Format>::multiply) {
  return {Format::kLaneBlock, Format::kBlockRows, sizeof(typename Format::Sum), safe_pairs, multiply};
}

}  // namespace
}  // namespace gristmill
