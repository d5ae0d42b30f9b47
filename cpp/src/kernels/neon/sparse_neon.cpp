#include "kernels/neon/sparse_neon.h"

namespace gristmill {
namespace {

/// The four weights of an entry as s16, once or twice.
[[gnu::always_inline]] inline int16x8_t load_weights(const std::int8_t (&weight)[4]) {
  std::int32_t all;
  __builtin_memcpy(&all, weight, 4);
  return vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(all)));
}

[[gnu::always_inline]] inline int16x8_t widen_low(uint8x16_t x) {
  return vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x)));
}

[[gnu::always_inline]] inline int16x8_t widen_high(uint8x16_t x) {
  return vreinterpretq_s16_u16(vmovl_high_u8(x));
}

/// Each weight times its own panel row, pixels widened to s16.
struct Quads {
  using Entry = SparseQuad;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = kSparseLanes, kBlockRows = kSparseRows;
  static constexpr int kSets = 1;

  struct Sum {
    int32x4_t sum[8];

    [[gnu::always_inline]] void add(const SparseQuad& quad, const std::uint8_t* panel) {
      const int16x4_t weights = vget_low_s16(load_weights(quad.weight));
      unroll<4>([&](auto i) GRISTMILL_INLINE {
        unroll<2>([&](auto v) GRISTMILL_INLINE {
          const uint8x16_t x = vld1q_u8(panel + kOffsetUnit * quad.offset[i] + 16 * v);
          const int16x8_t low = widen_low(x), high = widen_high(x);
          sum[4 * v] = vmlal_lane_s16(sum[4 * v], vget_low_s16(low), weights, i.value);
          sum[4 * v + 1] = vmlal_high_lane_s16(sum[4 * v + 1], low, weights, i.value);
          sum[4 * v + 2] = vmlal_lane_s16(sum[4 * v + 2], vget_low_s16(high), weights, i.value);
          sum[4 * v + 3] = vmlal_high_lane_s16(sum[4 * v + 3], high, weights, i.value);
        });
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

/// A product of a pixel and a weight is at most 255 * 128 = 32640 in magnitude: it fits s16, and neighbours
/// are added into s32, two sums to a lane:
///
///     pixels   a0 a1 a2 a3 b0 b1 b2 b3   *  w0 w1 w2 w3 w0 w1 w2 w3   ->  sums  a01 a23 b01 b23
struct Blocks {
  using Entry = SparseBlock;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = kSparseLanes, kBlockRows = kSparseRows;
  static constexpr int kSets = 1;

  struct Sum {
    int32x4_t sum[16];

    [[gnu::always_inline]] void add(const SparseBlock& block, const std::uint8_t* panel) {
      const int16x8_t weights = load_weights(block.weight);
      unroll<8>([&](auto v) GRISTMILL_INLINE {
        const uint8x16_t x = vld1q_u8(panel + kOffsetUnit * block.offset + 16 * v);
        sum[2 * v] = vpadalq_s16(sum[2 * v], vmulq_s16(widen_low(x), weights));
        sum[2 * v + 1] = vpadalq_s16(sum[2 * v + 1], vmulq_s16(widen_high(x), weights));
      });
    }
  };

  struct Finish : FinishS8Neon {
    using FinishS8Neon::FinishS8Neon;
    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      int32x4_t sum[8];
      unroll<8>([&](auto v) GRISTMILL_INLINE { sum[v] = vpaddq_s32(of.sum[2 * v], of.sum[2 * v + 1]); });
      FinishS8Neon::store(sum, channel);
    }
  };
};

struct Singles {
  using Entry = SparseSingle;
  using Element = float;
  static constexpr std::size_t kLaneBlock = kSparseLanes, kBlockRows = kSparseRows / 4;
  static constexpr int kSets = 1;

  struct Sum {
    float32x4_t sum[8];

    [[gnu::always_inline]] void add(const SparseSingle& single, const float* panel) {
      const float32x4_t weight = vdupq_n_f32(single.weight);
      unroll<8>([&](auto v) GRISTMILL_INLINE {
        sum[v] = vfmaq_f32(sum[v], vld1q_f32(panel + single.offset + 4 * v), weight);
      });
    }
  };

  class Finish {
   public:
    explicit Finish(const SparseJob& job)
        : job_(job), epilogue_(*static_cast<const EpilogueF32*>(job.epilogue)) {}

    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      const float32x4_t bias = vdupq_n_f32(epilogue_.bias[channel]);
      float32x4_t value[8];
      unroll<8>([&](auto v) GRISTMILL_INLINE {
        value[v] = clamped(vaddq_f32(of.sum[v], bias), epilogue_.low, epilogue_.high);
      });
      if (epilogue_.residual != nullptr) add_residual(value, channel);
      uint8x16_t result[8];
      unroll<8>([&](auto v) GRISTMILL_INLINE { result[v] = vreinterpretq_u8_f32(value[v]); });
      auto* out = static_cast<float*>(job_.out) + channel * job_.out_stride;
      store_exactly<128>(result, reinterpret_cast<std::uint8_t*>(out), 4 * job_.lanes);
    }

   private:
    [[gnu::always_inline]] static float32x4_t clamped(float32x4_t value, float low, float high) {
      return vminq_f32(vmaxq_f32(value, vdupq_n_f32(low)), vdupq_n_f32(high));
    }
    void add_residual(float32x4_t (&value)[8], std::size_t channel) const {
      float residual[kLaneBlock] = {};
      __builtin_memcpy(residual, epilogue_.residual + channel * job_.out_stride, 4 * job_.lanes);
      unroll<8>([&](auto v) GRISTMILL_INLINE {
        value[v] =
            clamped(vaddq_f32(value[v], vld1q_f32(residual + 4 * v)), epilogue_.sum_low, epilogue_.sum_high);
      });
    }

    const SparseJob& job_;
    const EpilogueF32 epilogue_;
  };
};

}  // namespace

void install_sparse_neon(SparseKernels& slots) {
  slots.quads = sparse_format<Quads>(false);
  slots.blocks = sparse_format<Blocks>(false);
  slots.singles = sparse_format<Singles>(false);
}

}  // namespace gristmill
