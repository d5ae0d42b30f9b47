#include "kernels/neon/sparse_neon.h"

namespace gristmill {
namespace {

/// The four weights of an entry in every 32-bit lane.
[[gnu::always_inline]] inline int8x16_t load_weights(const std::int8_t (&weight)[4]) {
  std::int32_t all;
  __builtin_memcpy(&all, weight, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(all));
}

/// Four panel rows, interleaved byte by byte:
///
///     a0 a1 ..  b0 b1 ..  c0 c1 ..  d0 d1 ..  ->  a0 b0 a1 b1 ..  c0 d0 c1 d1 ..  ->  a0 b0 c0 d0 a1 ..
struct Quads {
  using Entry = SparseQuad;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = kSparseLanes, kBlockRows = kSparseRows;
  static constexpr int kSets = 1;

  struct Sum {
    int32x4_t sum[8];

    [[gnu::always_inline]] void add(const SparseQuad& quad, const std::uint8_t* panel) {
      const int8x16_t weights = load_weights(quad.weight);
      unroll<2>([&](auto v) GRISTMILL_INLINE {
        uint8x16_t x[4];
        unroll<4>([&](auto i)
                      GRISTMILL_INLINE { x[i] = vld1q_u8(panel + kOffsetUnit * quad.offset[i] + 16 * v); });
        add_zipped<4 * v.value>(vzip1q_u8(x[0], x[1]), vzip1q_u8(x[2], x[3]), weights);
        add_zipped<4 * v.value + 2>(vzip2q_u8(x[0], x[1]), vzip2q_u8(x[2], x[3]), weights);
      });
    }

    template <int first>
    [[gnu::always_inline]] void add_zipped(uint8x16_t ab, uint8x16_t cd, int8x16_t weights) {
      const uint16x8_t a = vreinterpretq_u16_u8(ab), c = vreinterpretq_u16_u8(cd);
      sum[first] = vusdotq_s32(sum[first], vreinterpretq_u8_u16(vzip1q_u16(a, c)), weights);
      sum[first + 1] = vusdotq_s32(sum[first + 1], vreinterpretq_u8_u16(vzip2q_u16(a, c)), weights);
    }
  };

  struct Finish : FinishS8Neon {
    using FinishS8Neon::FinishS8Neon;
    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      FinishS8Neon::store(of.sum, channel);
    }
  };
};

/// Four lanes to a vector, each with the four bytes of the block's group.
struct Blocks {
  using Entry = SparseBlock;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = kSparseLanes, kBlockRows = kSparseRows;
  static constexpr int kSets = 1;

  struct Sum {
    int32x4_t sum[8];

    [[gnu::always_inline]] void add(const SparseBlock& block, const std::uint8_t* panel) {
      const int8x16_t weights = load_weights(block.weight);
      unroll<8>([&](auto v) GRISTMILL_INLINE {
        sum[v] = vusdotq_s32(sum[v], vld1q_u8(panel + kOffsetUnit * block.offset + 16 * v), weights);
      });
    }
  };

  struct Finish : FinishS8Neon {
    using FinishS8Neon::FinishS8Neon;
    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      FinishS8Neon::store(of.sum, channel);
    }
  };
};

}  // namespace

void install_sparse_neon_i8mm(SparseKernels& slots) {
  slots.quads = sparse_format<Quads>(false);
  slots.blocks = sparse_format<Blocks>(false);
}

}  // namespace gristmill
