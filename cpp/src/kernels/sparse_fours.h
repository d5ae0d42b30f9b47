#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/sparse_rows.h"
#include "kernels/unroll.h"

namespace gristmill {
namespace {

/// Blocks or singles, `Of`, four to an entry: the offsets are one load, and so are the weights, which
/// shuffles spread over vectors. With one load each for every offset and weight they would be a third of all
/// loads, which are the bottleneck. `Level` names FourWeights, the weights of such an entry as vectors, and
/// `Of` what sums are made of:
///
///     Weight                                  a vector of weights
///     void Sum::add(const Element* row, Weight)
template <class Level, class Of>
struct Fours {
  using Entry = SparseFours;
  using Element = typename Of::Element;
  static constexpr std::size_t kLaneBlock = Of::kLaneBlock;
  static constexpr std::size_t kBlockRows = Of::kBlockRows;
  static constexpr bool kInterleaved = true, kFours = true;
  static constexpr int kSets = 1;

  struct Sum : Of::Sum {
    using Of::Sum::add;
    [[gnu::always_inline]] void add(const SparseFours& fours, const Element* panel) {
      add_fours(*this, *this, fours, panel);
    }
  };

  struct Finish : Of::Finish {
    using Of::Finish::Finish;
  };

  template <bool far>
  [[gnu::always_inline]] static void add_pair(Sum& a, Sum& b, const SparseFours* fours,
                                              const SparseFours* end, const Element* panel) {
    constexpr std::size_t kAhead = 2560;
    for (; fours != end; ++fours) {
      if constexpr (far) __builtin_prefetch(reinterpret_cast<const char*>(fours) + kAhead);
      add_fours(a, b, *fours, panel);
    }
  }

 private:
  [[gnu::always_inline]] static void add_fours(Sum& a, Sum& b, const SparseFours& fours,
                                               const Element* panel) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(panel);
    std::uint64_t offsets;
    __builtin_memcpy(&offsets, fours.offset, sizeof offsets);
    const typename Level::FourWeights weights(fours.weight);
    unroll<4>([&](auto i) GRISTMILL_INLINE {
      const auto* row = bytes + kOffsetUnit * (offsets >> 16 * i & 0xFFFF);
      typename Of::Weight weight;
      weights.spread(i, weight);
      (i % 2 == 0 ? a : b).add(reinterpret_cast<const Element*>(row), weight);
    });
  }
};

}  // namespace
}  // namespace gristmill
