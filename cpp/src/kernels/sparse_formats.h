#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/clamp_sums.h"
#include "kernels/sparse_finish.h"
#include "kernels/sparse_rows.h"
#include "kernels/unroll.h"

/// The three sparse formats of the x86 levels, as templates over the level's vectors. `Level` names
///
///     Vector              s32 accumulators and bytes alike, kWidth of the former; load, store, add
///     broadcast           an s32 in every dword
///     multiply_add        sum + x · w in groups of four bytes
///     kInterleaved        whether the quads of two rows alternate
///     PackedAs<Of>        how blocks or singles are packed: Of, or Fours of it (kernels/sparse_fours.h)
///     low8, high8, low16, high16          unpacking of bytes and words within 128-bit parts
///     in_order            puts the four sums of Quads into the order of lanes
///     packed_in_order     puts the bytes into that order which sums in it become when they are packed
///     Epilogue, OneChannel, Bytes         the level's int8 epilogue, and its shorter form for bytes
///     Few                 the level of 128 bits, for four lanes or fewer
///     Half                if kHasHalf, the level of half the width, for lane blocks that are not half full
///     either              if kHasWords, for WordQuads
///     add_quads           if kHasQuadLoop, a loop over the quads of two rows that alternate
///     store_first         if kStoresParts, stores that many bytes of a vector
///     Simd                the level's f32 vectors
///
/// A lane block is kLaneBlock lanes, four vectors; of the last one of a row of pixels, no more vectors are
/// computed than it fills.
namespace gristmill {
namespace {

/// The weights of an entry, as one dword.
[[gnu::always_inline]] inline std::int32_t dword_of(const std::int8_t (&weight)[4]) {
  std::int32_t all;
  __builtin_memcpy(&all, weight, 4);
  return all;
}

[[gnu::always_inline]] inline std::int32_t weights_of(const SparseQuad& quad) {
  return dword_of(quad.weight);
}
[[gnu::always_inline]] inline std::int32_t weights_of(const SparseSpreadQuad& quad) {
  std::int32_t low, high;
  __builtin_memcpy(&low, quad.weight + 2, 4);
  __builtin_memcpy(&high, quad.weight + 4, 4);
  return low | high;
}

/// Whether the quads of two rows alternate.
template <class Level, class Quad>
inline constexpr bool is_interleaved = Level::kInterleaved && sizeof(Quad) == sizeof(SparseQuad);

/// The panel rows of a quad. Its offsets are loaded by twos, which pays where loads are most of the work.
struct QuadRows {
  const std::uint8_t* row[4];

  template <class Quad>
  [[gnu::always_inline]] QuadRows(const Quad& quad, const std::uint8_t* panel) {
    std::uint32_t pair[2];
    __builtin_memcpy(pair, quad.offset, sizeof pair);
    unroll<4>([&](auto i) GRISTMILL_INLINE {
      row[i] = panel + kOffsetUnit * (i % 2 == 0 ? pair[i / 2] & 0xFFFF : pair[i / 2] >> 16);
    });
  }
};

/// The first four lanes of Quads, whose sums are one 128-bit vector and in order. Level also names `Wide`,
/// the level whose epilogue it uses, and `widen`. What whole lane blocks leave of 14 by 14 pixels is four
/// lanes.
template <class Level, class Quad = SparseQuad>
struct FewQuads {
  using Entry = Quad;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = Level::kLaneBlock;
  static constexpr bool kInterleaved = is_interleaved<Level, Quad>;
  static constexpr int kSets = 2;

  struct Sum {
    typename Level::Vector sum;

    [[gnu::always_inline]] void add(const Quad& quad, const std::uint8_t* panel) {
      const QuadRows of(quad, panel);
      const auto low01 = Level::low8(Level::load(of.row[0]), Level::load(of.row[1]));
      const auto low23 = Level::low8(Level::load(of.row[2]), Level::load(of.row[3]));
      sum = Level::multiply_add(sum, Level::low16(low01, low23), Level::broadcast(weights_of(quad)));
    }
    [[gnu::always_inline]] void add(const Sum& other) { sum = Level::add(sum, other.sum); }
  };

  struct Finish : FinishS8<typename Level::Wide> {
    using FinishS8<typename Level::Wide>::FinishS8;
    [[gnu::always_inline]] void start(Sum& of, std::size_t channel) const {
      of.sum = Level::broadcast(this->bias(channel));
    }
    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      const typename Level::Wide::Vector wide[] = {Level::widen(of.sum)};
      FinishS8<typename Level::Wide>::store(wide, channel);
    }
  };
};

/// Half a lane block of Quads, from a panel of words: each is a byte with a zero above it, so that what is
/// loaded from one byte before a panel row has the bytes above zeros. One OR then interleaves two panel rows,
/// where whole lane blocks take shuffles. Level also names
///
///     either              OR
///     in_order            of two sums, as of four
template <class Level, template <class> class Base = FinishS8>
struct WordQuads {
  using Vector = typename Level::Vector;
  using Entry = SparseQuad;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = Level::kLaneBlock;
  static constexpr int kSets = 1;

  struct Sum {
    Vector sum[2];

    [[gnu::always_inline]] void add(const SparseQuad& quad, const std::uint8_t* panel) {
      const auto pair = [&](int i) GRISTMILL_INLINE {
        return Level::either(Level::load(panel + kOffsetUnit * quad.offset[i]),
                             Level::load(panel + kOffsetUnit * quad.offset[i + 1] - 1));
      };
      const Vector x01 = pair(0), x23 = pair(2), w = Level::broadcast(weights_of(quad));
      sum[0] = Level::multiply_add(sum[0], Level::low16(x01, x23), w);
      sum[1] = Level::multiply_add(sum[1], Level::high16(x01, x23), w);
    }
  };

  struct Finish : Base<Level> {
    using Base<Level>::Base;
    [[gnu::always_inline]] void start(Sum& of, std::size_t channel) const {
      of.sum[0] = of.sum[1] = Level::broadcast(this->bias(channel));
    }
    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      Vector sums[2];
      Level::in_order(of.sum, sums);
      Base<Level>::store(sums, channel);
    }
  };

  static void multiply(const SparseJob& job) {
    if (FinishBytes<Level>::applies(job, 2)) return SparseRows<WordQuads<Level, FinishBytes>>::multiply(job);
    SparseRows<WordQuads>::multiply(job);
  }
};

/// Four panel rows, interleaved byte by byte. Unpacking works within 128-bit parts: part p of
/// sum[i] holds the lanes 16p + 4i .. 16p + 4i + 3.
template <class Level, class Quad = SparseQuad, template <class> class Base = FinishS8>
struct Quads {
  using Entry = Quad;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = Level::kLaneBlock;
  static constexpr std::size_t kBlockRows = Level::kByteRows;
  static constexpr bool kInterleaved = is_interleaved<Level, Quad>;
  static constexpr int kSets = 1;

  struct Sum {
    typename Level::Vector sum[4];

    [[gnu::always_inline]] void add(const Quad& quad, const std::uint8_t* panel) {
      const auto x0 = Level::load(panel + kOffsetUnit * quad.offset[0]),
                 x1 = Level::load(panel + kOffsetUnit * quad.offset[1]);
      const auto x2 = Level::load(panel + kOffsetUnit * quad.offset[2]),
                 x3 = Level::load(panel + kOffsetUnit * quad.offset[3]);
      const auto low01 = Level::low8(x0, x1), low23 = Level::low8(x2, x3);
      const auto high01 = Level::high8(x0, x1), high23 = Level::high8(x2, x3);
      const auto w = Level::broadcast(weights_of(quad));
      sum[0] = Level::multiply_add(sum[0], Level::low16(low01, low23), w);
      sum[1] = Level::multiply_add(sum[1], Level::high16(low01, low23), w);
      sum[2] = Level::multiply_add(sum[2], Level::low16(high01, high23), w);
      sum[3] = Level::multiply_add(sum[3], Level::high16(high01, high23), w);
    }
  };

  template <bool far>
  [[gnu::always_inline]] static void add_pair(Sum& a, Sum& b, const SparseQuad* quad, const SparseQuad* end,
                                              const std::uint8_t* panel) requires(Level::kHasQuadLoop) {
    Level::template add_quads<far>(a.sum, b.sum, quad, end, panel);
  }

  struct Finish : Base<Level> {
    using Base<Level>::Base;
    [[gnu::always_inline]] void start(Sum& of, std::size_t channel) const {
      const auto first = Level::broadcast(this->bias(channel));
      unroll<4>([&](auto i) GRISTMILL_INLINE { of.sum[i] = first; });
    }
    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      this->store_unpacked(of.sum, channel);
    }
  };

  static void multiply(const SparseJob& job) {
    if constexpr (Level::kHasWords) {
      if (job.words) return WordQuads<Level>::multiply(job);
    }
    using Few = typename Level::Few;
    if (job.lanes <= Few::kWidth) return SparseRows<FewQuads<Few>>::multiply(job);
    if constexpr (Level::kHasHalf) {
      if (job.lanes <= kLaneBlock / 2) return multiply_vectors<typename Level::Half, Quad>(job);
    }
    multiply_vectors<Level, Quad>(job);
  }

  /// Of more than a few lanes, no more than the level has in its vectors.
  template <class OfLevel, class OfQuad>
  static void multiply_vectors(const SparseJob& job) {
    if (FinishBytes<OfLevel>::applies(job))
      return SparseRows<Quads<OfLevel, OfQuad, FinishBytes>>::multiply(job);
    SparseRows<Quads<OfLevel, OfQuad>>::multiply(job);
  }
};

/// Runs a job by the format with no more vectors than its lanes fill.
template <template <class, int> class Format, class Level, std::size_t width, int most, int vectors = 1>
void multiply_lanes(const SparseJob& job) {
  if constexpr (vectors < most) {
    if (job.lanes > vectors * width) return multiply_lanes<Format, Level, width, most, vectors + 1>(job);
  }
  SparseRows<Format<Level, vectors>>::multiply(job);
}

/// kWidth lanes to a vector, each with the four bytes of the block's group.
template <class Level, int vectors = 4, template <class> class Base = FinishS8>
struct Blocks {
  using Entry = SparseBlock;
  using Weight = typename Level::Vector;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = Level::kLaneBlock;
  static constexpr std::size_t kBlockRows = Level::kByteRows;
  static constexpr int kSets = 1;

  struct Sum {
    typename Level::Vector sum[vectors];

    [[gnu::always_inline]] void add(const SparseBlock& block, const std::uint8_t* panel) {
      add(panel + kOffsetUnit * block.offset, Level::broadcast(dword_of(block.weight)));
    }
    [[gnu::always_inline]] void add(const std::uint8_t* group, Weight w) {
      unroll<vectors>([&](auto i) GRISTMILL_INLINE {
        sum[i] = Level::multiply_add(sum[i], Level::load(group + 4 * Level::kWidth * i), w);
      });
    }
  };

  struct Finish : Base<Level> {
    using Base<Level>::Base;
    [[gnu::always_inline]] void start(Sum& of, std::size_t channel) const {
      const auto first = Level::broadcast(this->bias(channel));
      unroll<vectors>([&](auto i) GRISTMILL_INLINE { of.sum[i] = first; });
    }
    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      Base<Level>::store(of.sum, channel);
    }
  };

  template <class OfLevel, int count>
  using Fewer = typename Level::template PackedAs<gristmill::Blocks<OfLevel, count>>;

  static void multiply(const SparseJob& job) {
    if (job.lanes > 3 * Level::kWidth && FinishBytes<Level>::applies(job))
      return SparseRows<
          typename Level::template PackedAs<gristmill::Blocks<Level, 4, FinishBytes>>>::multiply(job);
    multiply_lanes<Fewer, Level, std::size_t{Level::kWidth}, 4>(job);
  }
};

/// A fused multiply-add takes four cycles and up to two start in each, so eight sums are kept in flight: of
/// as many vectors, or two of each of four.
template <class Level, int vectors = Level::kFloatVectors>
struct Singles {
  using Simd = typename Level::Simd;
  using Vector = typename Simd::Vector;
  using Entry = SparseSingle;
  using Weight = Vector;
  using Element = float;
  static constexpr std::size_t kLaneBlock = Level::kFloatVectors * Simd::kWidth;
  static constexpr std::size_t kBlockRows = Level::kFloatRows;
  static constexpr int kSets = vectors > 4 ? 1 : 2;

  struct Sum {
    Vector sum[vectors];

    [[gnu::always_inline]] void add(const SparseSingle& single, const float* panel) {
      add(panel + single.offset, Simd::broadcast(&single.weight));
    }
    [[gnu::always_inline]] void add(const float* row, Weight w) {
      unroll<vectors>([&](auto i) GRISTMILL_INLINE {
        sum[i] = Simd::fma(w, Simd::load(row + Simd::kWidth * i), sum[i]);
      });
    }
    [[gnu::always_inline]] void add(const Sum& other) {
      unroll<vectors>([&](auto i) GRISTMILL_INLINE { sum[i] = Simd::add(sum[i], other.sum[i]); });
    }
  };

  /// Knows each row of the panel one entry before its turn: loads that wait for their address would fill the
  /// queue in which the next one should be found.
  [[gnu::always_inline]] static void add_run(Sum (&sum)[1], const SparseSingle* entry,
                                             const SparseSingle* end,
                                             const float* panel) requires(kSets == 1) {
    if (entry == end) return;
    const float* row = panel + entry->offset;
    for (; entry + 1 != end; ++entry) {
      const float* next = panel + entry[1].offset;
      __asm__("" : "+r"(next));
      sum[0].add(row, Simd::broadcast(&entry->weight));
      row = next;
    }
    sum[0].add(row, Simd::broadcast(&entry->weight));
  }

  class Finish {
   public:
    explicit Finish(const SparseJob& job)
        : job_(job), epilogue_(*static_cast<const EpilogueF32*>(job.epilogue)) {}

    [[gnu::always_inline]] void expect(std::size_t channel) const {
      constexpr int kLines = (vectors * Simd::kWidth + 15) / 16;
      const float* out = static_cast<const float*>(job_.out) + channel * job_.out_stride;
      unroll<kLines>([&](auto line) GRISTMILL_INLINE { __builtin_prefetch(out + 16 * line, 1); });
      if (epilogue_.residual == nullptr) return;
      const float* residual = epilogue_.residual + channel * job_.out_stride;
      unroll<kLines>([&](auto line) GRISTMILL_INLINE { __builtin_prefetch(residual + 16 * line); });
    }

    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      float* out = static_cast<float*>(job_.out) + channel * job_.out_stride;
      const Vector bias = Simd::broadcast(epilogue_.bias + channel);
      Vector values[1][vectors];
      auto& value = values[0];
      unroll<vectors>([&](auto i) GRISTMILL_INLINE { value[i] = Simd::add(of.sum[i], bias); });
      clamp_sums<Simd>(values, epilogue_.low, epilogue_.high);
      if (epilogue_.residual != nullptr) {
        const float* residual = epilogue_.residual + channel * job_.out_stride;
        for_each_vector([&](auto i, std::size_t here) GRISTMILL_INLINE {
          const float* at = residual + i * Simd::kWidth;
          value[i] = Simd::add(value[i], here == Simd::kWidth ? Simd::load(at) : Simd::load_first(at, here));
        });
        clamp_sums<Simd>(values, epilogue_.sum_low, epilogue_.sum_high);
      }
      for_each_vector([&](auto i, std::size_t here) GRISTMILL_INLINE {
        float* at = out + i * Simd::kWidth;
        here == Simd::kWidth ? Simd::store(at, value[i]) : Simd::store_first(at, value[i], here);
      });
    }

   private:
    /// Calls visit(vector, lanes of it).
    template <class Visit>
    [[gnu::always_inline]] void for_each_vector(const Visit& visit) const {
      std::size_t left = job_.lanes;
      unroll<vectors>([&](auto i) GRISTMILL_INLINE {
        const std::size_t here = left < Simd::kWidth ? left : Simd::kWidth;
        visit(i, here);
        left -= here;
      });
    }

    const SparseJob& job_;
    const EpilogueF32 epilogue_;
  };

  template <class OfLevel, int count>
  using Fewer = typename Level::template PackedAs<gristmill::Singles<OfLevel, count>>;

  static void multiply(const SparseJob& job) {
    multiply_lanes<Fewer, Level, std::size_t{Simd::kWidth}, Level::kFloatVectors>(job);
  }
};

}  // namespace
}  // namespace gristmill
