#include "packed_windows.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "gristmill/error.h"
#include "safe_pairs.h"

namespace gristmill {
namespace {

/// What is left of a row's nonzeros, in ascending order of columns.
template <class T>
struct Remainder {
  std::vector<std::uint32_t> columns;
  std::vector<T> weights;
  std::size_t next = 0;

  std::size_t first_column() const {
    return next < columns.size() ? columns[next] : std::numeric_limits<std::size_t>::max();
  }

  /// Moves the first one before column `end` that makes a safe pair with `weight` to the front, if there is
  /// one.
  bool bring_partner(T weight, std::size_t end) {
    for (std::size_t e = next; e < columns.size() && columns[e] < end; ++e) {
      if constexpr (std::is_integral_v<T>) {
        if (!is_safe_pair(weight, weights[e])) continue;
      }
      std::rotate(columns.begin() + next, columns.begin() + e, columns.begin() + e + 1);
      std::rotate(weights.begin() + next, weights.begin() + e, weights.begin() + e + 1);
      return true;
    }
    return false;
  }
};

template <class T>
Remainder<T> nonzeros(const CsrMatrix<T>& weights, std::size_t row) {
  Remainder<T> result;
  const auto columns = weights.row_indices(row);
  const auto values = weights.row_data(row);
  for (std::size_t e = 0; e < columns.size(); ++e) {
    if (values[e] == T{0}) continue;
    result.columns.push_back(static_cast<std::uint32_t>(columns[e]));
    result.weights.push_back(values[e]);
  }
  return result;
}

/// Fills a row's places of one step with its next nonzeros in the window that begins at `base`; beside each
/// other go those that are safe together.
template <class T>
void fill_row(Remainder<T>& row, const WindowFormat& format, std::size_t base, std::uint8_t* index,
              T* weight) {
  const auto end = base + format.window;
  for (std::size_t i = 0; i < format.depth && row.first_column() < end; ++i) {
    if (format.safe_pairs && i % 2 == 1 && !row.bring_partner(weight[i - 1], end)) continue;
    index[i] = static_cast<std::uint8_t>(row.first_column() - base + format.first_index);
    weight[i] = row.weights[row.next];
    ++row.next;
  }
}

}  // namespace

void PackedWindows::lay_out(const void* x, std::size_t element, std::uint8_t flip, void* to) const {
  const auto* from = static_cast<const std::uint8_t*>(x);
  auto* out = static_cast<std::uint8_t*>(to);
  const std::size_t bytes = columns * element;
  if (flip == 0)
    std::memcpy(out, from, bytes);
  else
    std::transform(from, from + bytes, out,
                   [&](std::uint8_t v) { return static_cast<std::uint8_t>(v ^ flip); });
  std::memset(out + bytes, 0, input_elements() * element - bytes);
}

template <class T>
PackedWindows pack_windows(const CsrMatrix<T>& weights, const WindowFormat& format) {
  PackedWindows packed;
  packed.format = &format;
  packed.rows = weights.rows();
  packed.columns = weights.columns();
  packed.start.push_back(0);
  const std::size_t places = format.rows * format.depth;
  std::vector<std::byte> entries;
  std::vector<T> step(places);
  std::vector<std::uint8_t> index(places);
  for (std::size_t first = 0; first < weights.rows(); first += format.rows) {
    std::vector<Remainder<T>> group;
    for (std::size_t row = first; row < std::min(first + format.rows, weights.rows()); ++row)
      group.push_back(nonzeros(weights, row));
    for (;;) {
      std::size_t base = std::numeric_limits<std::size_t>::max();
      for (const auto& row : group) base = std::min(base, row.first_column());
      if (base == std::numeric_limits<std::size_t>::max()) break;
      base = base / format.stride * format.stride;
      std::ranges::fill(index, kNoElement);
      std::ranges::fill(step, T{0});
      for (std::size_t row = 0; row < group.size(); ++row)
        fill_row(group[row], format, base, index.data() + row * format.depth,
                 step.data() + row * format.depth);
      const auto append = [&](const auto& values) {
        const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
        entries.insert(entries.end(), bytes, bytes + values.size() * sizeof(values[0]));
      };
      append(index);
      append(step);
      packed.base.push_back(static_cast<std::uint32_t>(base));
    }
    if (packed.base.size() > std::numeric_limits<std::uint32_t>::max())
      throw Error(ErrorKind::limit, "weights", "more than 2^32 - 1 steps in one sparse matrix");
    packed.start.push_back(static_cast<std::uint32_t>(packed.base.size()));
  }
  packed.entries.reserve(entries.size());
  if (!entries.empty()) std::memcpy(packed.entries.data(), entries.data(), entries.size());
  return packed;
}

template PackedWindows pack_windows(const CsrMatrix<std::int8_t>&, const WindowFormat&);
template PackedWindows pack_windows(const CsrMatrix<float>&, const WindowFormat&);

}  // namespace gristmill
