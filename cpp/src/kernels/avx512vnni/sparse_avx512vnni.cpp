#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "epilogue_avx512vnni.h"
#include "kernels/sparse_rows.h"

namespace gristmill {
namespace {

constexpr std::size_t kLanes = 64;

/// Four weights in every dword.
__m512i broadcast(const std::int8_t (&weight)[4]) {
  std::int32_t all;
  __builtin_memcpy(&all, weight, 4);
  return _mm512_set1_epi32(all);
}

class FinishS8 {
 public:
  explicit FinishS8(const SparseJob& job)
      : job_(job), channels_(*static_cast<const EpilogueS8*>(job.epilogue)), epilogue_(channels_) {}

  [[gnu::always_inline]] void store(const __m512i (&sum)[4], std::size_t channel) const {
    epilogue_.store<4>(sum, OneChannelAvx512(channels_, channel), job_.out, channel * job_.out_stride,
                       job_.lanes);
  }

 private:
  const SparseJob& job_;
  const EpilogueS8& channels_;
  const EpilogueAvx512 epilogue_;
};

/// Four panel rows, interleaved byte by byte. Unpacking works within 128-bit quarters, so quarter q of sum[i]
/// holds the lanes 16q + 4i .. 16q + 4i + 3.
struct Quads {
  using Entry = SparseQuad;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = kLanes;
  static constexpr std::size_t kBlockRows = 384;

  struct Sum {
    __m512i sum[4];

    template <int set>
    [[gnu::always_inline]] void add(const SparseQuad& quad, const std::uint8_t* panel) {
      const __m512i x0 = _mm512_loadu_si512(panel + quad.offset[0]),
                    x1 = _mm512_loadu_si512(panel + quad.offset[1]);
      const __m512i x2 = _mm512_loadu_si512(panel + quad.offset[2]),
                    x3 = _mm512_loadu_si512(panel + quad.offset[3]);
      const __m512i low01 = _mm512_unpacklo_epi8(x0, x1), low23 = _mm512_unpacklo_epi8(x2, x3);
      const __m512i high01 = _mm512_unpackhi_epi8(x0, x1), high23 = _mm512_unpackhi_epi8(x2, x3);
      const __m512i w = broadcast(quad.weight);
      sum[0] = _mm512_dpbusd_epi32(sum[0], _mm512_unpacklo_epi16(low01, low23), w);
      sum[1] = _mm512_dpbusd_epi32(sum[1], _mm512_unpackhi_epi16(low01, low23), w);
      sum[2] = _mm512_dpbusd_epi32(sum[2], _mm512_unpacklo_epi16(high01, high23), w);
      sum[3] = _mm512_dpbusd_epi32(sum[3], _mm512_unpackhi_epi16(high01, high23), w);
    }
  };

  struct Finish : FinishS8 {
    using FinishS8::FinishS8;
    /// The quarters of the four sums, transposed.
    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      const __m512i(&sum)[4] = of.sum;
      const __m512i low01 = _mm512_shuffle_i32x4(sum[0], sum[1], 0x44);
      const __m512i low23 = _mm512_shuffle_i32x4(sum[2], sum[3], 0x44);
      const __m512i high01 = _mm512_shuffle_i32x4(sum[0], sum[1], 0xEE);
      const __m512i high23 = _mm512_shuffle_i32x4(sum[2], sum[3], 0xEE);
      FinishS8::store(
          {_mm512_shuffle_i32x4(low01, low23, 0x88), _mm512_shuffle_i32x4(low01, low23, 0xDD),
           _mm512_shuffle_i32x4(high01, high23, 0x88), _mm512_shuffle_i32x4(high01, high23, 0xDD)},
          channel);
    }
  };
};

/// Sixteen lanes to a vector, each with the four bytes of the block's group.
struct Blocks {
  using Entry = SparseBlock;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = kLanes;
  static constexpr std::size_t kBlockRows = 384;

  struct Sum {
    __m512i sum[4];

    template <int set>
    [[gnu::always_inline]] void add(const SparseBlock& block, const std::uint8_t* panel) {
      const __m512i w = broadcast(block.weight);
      for (int i = 0; i < 4; ++i)
        sum[i] = _mm512_dpbusd_epi32(sum[i], _mm512_loadu_si512(panel + block.offset + 64 * i), w);
    }
  };

  struct Finish : FinishS8 {
    using FinishS8::FinishS8;
    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      FinishS8::store(of.sum, channel);
    }
  };
};

/// A fused multiply-add takes four cycles and up to two start in each, so eight sums are kept in flight: four
/// vectors of lanes, twice.
struct Singles {
  using Entry = SparseSingle;
  using Element = float;
  static constexpr std::size_t kLaneBlock = kLanes;
  static constexpr std::size_t kBlockRows = 128;

  struct Sum {
    __m512 sum[2][4];

    template <int set>
    [[gnu::always_inline]] void add(const SparseSingle& single, const float* panel) {
      const __m512 w = _mm512_set1_ps(single.weight);
      for (int i = 0; i < 4; ++i)
        sum[set][i] = _mm512_fmadd_ps(w, _mm512_loadu_ps(panel + single.offset + 16 * i), sum[set][i]);
    }
  };

  class Finish {
   public:
    explicit Finish(const SparseJob& job)
        : job_(job),
          bias_(static_cast<const EpilogueF32*>(job.epilogue)->bias),
          low_(_mm512_set1_ps(static_cast<const EpilogueF32*>(job.epilogue)->low)),
          high_(_mm512_set1_ps(static_cast<const EpilogueF32*>(job.epilogue)->high)) {}

    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      const __m512 bias = _mm512_set1_ps(bias_[channel]);
      float* out = static_cast<float*>(job_.out) + channel * job_.out_stride;
      for (std::size_t i = 0; i < 4; ++i) {
        const __m512 sum = _mm512_add_ps(_mm512_add_ps(of.sum[0][i], of.sum[1][i]), bias);
        const auto mask = static_cast<__mmask16>(first_bits(part_of(job_.lanes, 16 * i, 16)));
        // max and min return their second operand where either is NaN.
        _mm512_mask_storeu_ps(out + 16 * i, mask, _mm512_min_ps(high_, _mm512_max_ps(low_, sum)));
      }
    }

   private:
    const SparseJob& job_;
    const float* bias_;
    __m512 low_, high_;
  };
};

}  // namespace

void install_sparse_avx512vnni(SparseKernels& slots) {
  slots.quads = sparse_format<Quads>(false);
  slots.blocks = sparse_format<Blocks>(false);
  slots.singles = sparse_format<Singles>(false);
}

}  // namespace gristmill
