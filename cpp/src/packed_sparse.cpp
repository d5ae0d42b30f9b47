#include "gristmill/packed_sparse.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <type_traits>

#include "checked_size.h"
#include "gristmill/error.h"
#include "safe_pairs.h"
#include "sparse_kernels.h"

namespace gristmill {
namespace {

template <class T>
struct Nonzero {
  std::uint32_t column;  // within the K block
  T weight;
};

/// Finds the nonzeros of one row in columns [begin, end), numbered from `begin`.
template <class T>
void find_nonzeros(const CsrMatrix<T>& weights, std::size_t row, std::size_t begin, std::size_t end,
                   std::vector<Nonzero<T>>& result) {
  const auto columns = weights.row_indices(row);
  const auto values = weights.row_data(row);
  const auto first = std::ranges::lower_bound(columns, static_cast<std::int64_t>(begin)) - columns.begin();
  result.clear();
  for (auto e = static_cast<std::size_t>(first); e < columns.size(); ++e) {
    const auto column = static_cast<std::size_t>(columns[e]);
    if (column >= end) break;
    if (values[e] != T{0}) result.push_back({static_cast<std::uint32_t>(column - begin), values[e]});
  }
}

using Weight = Nonzero<std::int8_t>;

/// Orders s8 weights so that every pair (2i, 2i + 1) is safe, filling up with zeros where no partner is left.
/// Weights of opposite sign are always safe together; the heaviest of the more frequent sign are used up that
/// way, and what remains is paired light with heavy.
class SafePairs {
 public:
  void order(std::vector<Weight>& weights) {
    few_.clear();
    many_.clear();
    for (const Weight& w : weights) (w.weight > 0 ? many_ : few_).push_back(w);
    if (many_.size() < few_.size()) many_.swap(few_);
    sort_many();
    weights.clear();
    for (std::size_t i = 0; i < few_.size(); ++i) {
      weights.push_back(many_[i]);
      weights.push_back(few_[i]);
    }
    std::size_t heavy = few_.size(), light = many_.size();
    while (heavy < light) {
      const Weight first = many_[heavy];
      const bool paired = heavy + 1 < light && is_safe_pair(first.weight, many_[light - 1].weight);
      weights.push_back(first);
      weights.push_back(paired ? many_[--light] : Weight{first.column, 0});
      ++heavy;
    }
  }

 private:
  /// By falling magnitude, equal ones as they come.
  void sort_many() {
    std::array<std::uint32_t, 130> start{};  // of magnitude 128 - i
    for (const Weight& w : many_) ++start[129 - static_cast<std::size_t>(std::abs(int{w.weight}))];
    std::partial_sum(start.begin(), start.end(), start.begin());
    sorted_.resize(many_.size());
    for (const Weight& w : many_)
      sorted_[start[128 - static_cast<std::size_t>(std::abs(int{w.weight}))]++] = w;
    many_.swap(sorted_);
  }

  std::vector<Weight> many_, few_, sorted_;
};

void set_weights(SparseQuad& quad, const Weight* four) {
  for (std::size_t j = 0; j < 4; ++j) quad.weight[j] = four[j].weight;
}

void set_weights(SparseSpreadQuad& quad, const Weight* four) {
  for (std::size_t j = 0; j < 4; ++j) quad.weight[2 + j / 2 * 4 + j % 2] = four[j].weight;
}

class QuadAppender {
 public:
  template <class Quad>
  void operator()(std::vector<Weight>& weights, const SparseFormat& format, std::vector<Quad>& quads) {
    if (weights.empty()) return;
    if (format.safe_pairs) pairs_.order(weights);
    while (weights.size() % 4 != 0) weights.push_back({weights.back().column, 0});
    for (std::size_t i = 0; i < weights.size(); i += 4) {
      Quad quad{};
      for (std::size_t j = 0; j < 4; ++j)
        quad.offset[j] = static_cast<std::uint16_t>(weights[i + j].column * format.lane_block / kOffsetUnit);
      set_weights(quad, &weights[i]);
      quads.push_back(quad);
    }
  }

 private:
  SafePairs pairs_;
};

/// Appends a group of four; with unsafe pairs it is split into two entries that sum to it.
void append_block(const SparseBlock& block, const SparseFormat& format, std::vector<SparseBlock>& blocks) {
  SparseBlock kept = block, rest{block.offset, {}};
  for (int i = 0; i < 4; i += 2) {
    if (!format.safe_pairs || is_safe_pair(block.weight[i], block.weight[i + 1])) continue;
    std::swap(kept.weight[i + 1], rest.weight[i + 1]);
  }
  blocks.push_back(kept);
  if (rest.weight[1] != 0 || rest.weight[3] != 0) blocks.push_back(rest);
}

void append_blocks(const std::vector<Weight>& weights, const SparseFormat& format,
                   std::vector<SparseBlock>& blocks) {
  for (std::size_t i = 0; i < weights.size();) {
    const std::uint32_t group = weights[i].column / 4;
    SparseBlock block{static_cast<std::uint16_t>(group * 4 * format.lane_block / kOffsetUnit), {}};
    for (; i < weights.size() && weights[i].column / 4 == group; ++i)
      block.weight[weights[i].column % 4] = weights[i].weight;
    append_block(block, format, blocks);
  }
}

void append_singles(const std::vector<Nonzero<float>>& weights, const SparseFormat& format,
                    std::vector<SparseSingle>& singles) {
  for (const auto& w : weights)
    singles.push_back({w.column * static_cast<std::uint32_t>(format.lane_block), w.weight});
}

void set(SparseFours& fours, std::size_t i, const SparseBlock& block) {
  fours.offset[i] = block.offset;
  std::memcpy(fours.weight + 4 * i, block.weight, 4);
}

void set(SparseFours& fours, std::size_t i, const SparseSingle& single) {
  fours.offset[i] = static_cast<std::uint16_t>(single.offset * sizeof(float) / kOffsetUnit);
  std::memcpy(fours.weight + 4 * i, &single.weight, 4);
}

void fill_up(std::vector<SparseBlock>& row, std::size_t count) { row.resize(count); }

/// Splits weights, the heaviest each time. Halves are exact but for the least numbers that there are.
void fill_up(std::vector<SparseSingle>& row, std::size_t count) {
  const auto lighter = [](const SparseSingle& a, const SparseSingle& b) {
    return std::abs(a.weight) < std::abs(b.weight);
  };
  while (row.size() < count) {
    const auto heaviest = std::ranges::max_element(row, lighter);
    SparseSingle rest = *heaviest;
    heaviest->weight /= 2;
    if (std::isfinite(rest.weight)) rest.weight -= heaviest->weight;
    row.insert(heaviest + 1, rest);
  }
}

/// Appends the entries of two rows in fours, two of each, or four of the first one if the second has none.
/// The rows are filled up.
template <class Entry>
void append_fours(std::vector<Entry>& a, std::vector<Entry>& b, std::vector<SparseFours>& fours) {
  const std::size_t of_a = b.empty() ? 4 : 2;
  fill_up(a, round_up(std::max(a.size(), b.size()), of_a));
  if (!b.empty()) fill_up(b, a.size());
  for (std::size_t i = 0; i < a.size(); i += of_a) {
    SparseFours& four = fours.emplace_back();
    for (std::size_t j = 0; j < 4; ++j) set(four, j, b.empty() ? a[i + j] : (j % 2 == 0 ? a : b)[i + j / 2]);
  }
}

/// Appends the entries of two rows by turns, zeros filling up.
template <class Entry>
void append_by_turns(std::span<const Entry> a, std::span<const Entry> b, std::vector<Entry>& entries) {
  const std::size_t start = entries.size();
  entries.resize(start + 2 * std::max(a.size(), b.size()));
  for (std::size_t i = 0; i < a.size(); ++i) entries[start + 2 * i] = a[i];
  for (std::size_t i = 0; i < b.size(); ++i) entries[start + 2 * i + 1] = b[i];
}

/// Appends row after row; `row(i)` has the entries of the one that is executed as number i.
template <class Entry, class Packed, class Row>
void append_rows(const SparseFormat& format, std::size_t rows, const Row& row, std::vector<Packed>& entries,
                 std::vector<std::uint32_t>& starts) {
  [[maybe_unused]] std::vector<Entry> a, b;
  const auto push = [&](std::size_t start) { starts.push_back(static_cast<std::uint32_t>(start)); };
  for (std::size_t i = 0; i < rows; ++i) {
    const std::size_t start = entries.size();
    const bool paired = i + 1 < rows && (format.row_pairs || format.fours);
    push(start);
    if constexpr (std::is_same_v<Packed, SparseFours>) {
      a.assign(row(i).begin(), row(i).end());
      b.clear();
      if (paired) b.assign(row(i + 1).begin(), row(i + 1).end());
      append_fours(a, b, entries);
      if (paired) push(b.empty() ? entries.size() : start);
    } else if (paired) {
      append_by_turns<Entry>(row(i), row(i + 1), entries);
      push((start + entries.size()) / 2);
    } else {
      entries.insert(entries.end(), row(i).begin(), row(i).end());
    }
    if (paired) ++i;
  }
  push(entries.size());
}

/// Orders every `band` rows by falling length.
template <class Length>
void sort_rows(std::span<std::uint32_t> rows, std::size_t band, const Length& length) {
  for (std::size_t first = 0; first < rows.size(); first += band)
    std::ranges::stable_sort(rows.subspan(first, std::min(band, rows.size() - first)), std::greater(),
                             length);
}

/// Rows that are sorted together: a quarter of them, in whole chunks, or all if these are few.
std::size_t row_band(std::size_t rows) {
  constexpr std::size_t kFew = 1024, kBands = 4;
  return rows < kFew ? kFew : round_up(ceil_div(rows, kBands), kRowChunk);
}

/// Columns of a K block: as many as fit the first-level cache, or more where rows would have so few entries
/// in them, less than `least`, that starting on a row costs more than a slower cache. All blocks are about
/// equal.
std::size_t k_block_of(const SparseFormat& format, std::size_t columns, std::size_t rows, std::size_t entries,
                       std::size_t least) {
  const std::size_t addressable = std::numeric_limits<std::uint16_t>::max() / format.lane_block * kOffsetUnit;
  const std::size_t wanted = least * rows * columns / std::max<std::size_t>(entries, 1);
  const std::size_t most = std::min(addressable, std::clamp(wanted, format.k_block, 4 * format.k_block));
  const std::size_t blocks = std::max<std::size_t>(1, ceil_div(columns, most));
  return std::max<std::size_t>(4, 4 * ceil_div(columns, 4 * blocks));
}

template <class T, class Entry, class Packed = Entry, class Append>
PackedSparse pack(SparseKind kind, const CsrMatrix<T>& weights, const SparseFormat& format, Append append) {
  constexpr std::size_t kMost = std::numeric_limits<std::uint32_t>::max();
  if (weights.rows() >= kMost || weights.entry_count() >= kMost / 2)
    throw Error(ErrorKind::limit, "weights", "more than 2^31 nonzeros in one sparse matrix");
  PackedSparse packed;
  packed.kind = kind;
  packed.fours = format.fours;
  packed.rows = weights.rows();
  packed.columns = weights.columns();
  const bool singles = kind == SparseKind::singles;
  // The more sums wait in memory between K blocks, the more entries must pay for it.
  const std::size_t least = std::max<std::size_t>(8, format.sum_bytes / 16);
  packed.k_block =
      k_block_of(format, weights.columns(), weights.rows(), weights.entry_count() / (singles ? 1 : 4), least);
  packed.k_blocks = std::max<std::size_t>(1, ceil_div(weights.columns(), packed.k_block));
  std::vector<std::uint32_t> order(packed.rows);
  std::iota(order.begin(), order.end(), 0u);
  sort_rows(order, row_band(packed.rows), [&](std::uint32_t row) { return weights.row_indices(row).size(); });
  std::vector<Packed> entries;
  std::vector<Entry> block_entries;
  std::vector<std::size_t> start(packed.rows + 1);  // of each row's, within the block's
  std::vector<Nonzero<T>> nonzeros;
  for (std::size_t block = 0; block < packed.k_blocks; ++block) {
    const std::size_t begin = block * packed.k_block,
                      end = std::min(begin + packed.k_block, weights.columns());
    block_entries.clear();
    for (std::size_t row = 0; row < packed.rows; ++row) {
      find_nonzeros(weights, row, begin, end, nonzeros);
      append(nonzeros, format, block_entries);
      start[row + 1] = block_entries.size();
    }
    sort_rows(order, kRowChunk, [&](std::uint32_t row) { return start[row + 1] - start[row]; });
    const auto row = [&](std::size_t i) {
      return std::span<const Entry>(block_entries)
          .subspan(start[order[i]], start[order[i] + 1] - start[order[i]]);
    };
    append_rows<Entry>(format, packed.rows, row, entries, packed.entry_start);
    packed.row_order.insert(packed.row_order.end(), order.begin(), order.end());
  }
  packed.entries.resize(entries.size() * sizeof(Packed));
  if (!entries.empty()) std::memcpy(packed.entries.data(), entries.data(), packed.entries.size());
  return packed;
}

}  // namespace

std::size_t PackedSparse::entries_before(std::size_t row) const noexcept {
  std::size_t entries_of_rows = 0;
  for (std::size_t block = 0; block < k_blocks; ++block) {
    const std::uint32_t* start = entry_start.data() + block * (rows + 1);
    entries_of_rows += start[row] - start[0];
  }
  return entries_of_rows;
}

PackedSparse pack_sparse_quads(const CsrMatrix<std::int8_t>& weights, const SparseFormat& format) {
  if (format.spread)
    return pack<std::int8_t, SparseSpreadQuad>(SparseKind::quads, weights, format, QuadAppender{});
  return pack<std::int8_t, SparseQuad>(SparseKind::quads, weights, format, QuadAppender{});
}

PackedSparse pack_sparse_blocks(const CsrMatrix<std::int8_t>& weights, const SparseFormat& format) {
  if (format.fours)
    return pack<std::int8_t, SparseBlock, SparseFours>(SparseKind::blocks, weights, format, append_blocks);
  return pack<std::int8_t, SparseBlock>(SparseKind::blocks, weights, format, append_blocks);
}

PackedSparse pack_sparse_singles(const CsrMatrix<float>& weights, const SparseFormat& format) {
  if (format.fours)
    return pack<float, SparseSingle, SparseFours>(SparseKind::singles, weights, format, append_singles);
  return pack<float, SparseSingle>(SparseKind::singles, weights, format, append_singles);
}

}  // namespace gristmill
