#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "epilogue_avx2.h"
#include "kernels/sparse_rows.h"

namespace gristmill {
namespace {

constexpr std::size_t kLanes = 32;

__m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }

/// Four weights in every dword.
__m256i broadcast(const std::int8_t (&weight)[4]) {
  std::int32_t all;
  __builtin_memcpy(&all, weight, 4);
  return _mm256_set1_epi32(all);
}

/// sum + x · w in groups of four bytes. Exact: the packer has seen to it that no pair can saturate.
__m256i multiply_add(__m256i sum, __m256i x, __m256i w) {
  const __m256i pairs = _mm256_maddubs_epi16(x, w);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

class FinishS8 {
 public:
  explicit FinishS8(const SparseJob& job)
      : job_(job), channels_(*static_cast<const EpilogueS8*>(job.epilogue)), epilogue_(channels_) {}

  [[gnu::always_inline]] void store(const __m256i (&sum)[4], std::size_t channel) const {
    epilogue_.store<4>(sum, OneChannelAvx2(channels_, channel), job_.out, channel * job_.out_stride,
                       job_.lanes);
  }

 private:
  const SparseJob& job_;
  const EpilogueS8& channels_;
  const EpilogueAvx2 epilogue_;
};

/// Four panel rows, interleaved byte by byte. Unpacking works within 128-bit halves, so lanes end up as
///
///     sum[0]  0- 3 | 16-19        sum[2]   8-11 | 24-27
///     sum[1]  4- 7 | 20-23        sum[3]  12-15 | 28-31
struct Quads {
  using Entry = SparseQuad;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = kLanes;
  static constexpr std::size_t kBlockRows = 768;

  struct Sum {
    __m256i sum[4];

    template <int set>
    [[gnu::always_inline]] void add(const SparseQuad& quad, const std::uint8_t* panel) {
      const __m256i x0 = load(panel + quad.offset[0]), x1 = load(panel + quad.offset[1]);
      const __m256i x2 = load(panel + quad.offset[2]), x3 = load(panel + quad.offset[3]);
      const __m256i low01 = _mm256_unpacklo_epi8(x0, x1), low23 = _mm256_unpacklo_epi8(x2, x3);
      const __m256i high01 = _mm256_unpackhi_epi8(x0, x1), high23 = _mm256_unpackhi_epi8(x2, x3);
      const __m256i w = broadcast(quad.weight);
      sum[0] = multiply_add(sum[0], _mm256_unpacklo_epi16(low01, low23), w);
      sum[1] = multiply_add(sum[1], _mm256_unpackhi_epi16(low01, low23), w);
      sum[2] = multiply_add(sum[2], _mm256_unpacklo_epi16(high01, high23), w);
      sum[3] = multiply_add(sum[3], _mm256_unpackhi_epi16(high01, high23), w);
    }
  };

  struct Finish : FinishS8 {
    using FinishS8::FinishS8;
    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      const __m256i(&sum)[4] = of.sum;
      FinishS8::store(
          {_mm256_permute2x128_si256(sum[0], sum[1], 0x20), _mm256_permute2x128_si256(sum[2], sum[3], 0x20),
           _mm256_permute2x128_si256(sum[0], sum[1], 0x31), _mm256_permute2x128_si256(sum[2], sum[3], 0x31)},
          channel);
    }
  };
};

/// Eight lanes to a vector, each with the four bytes of the block's group.
struct Blocks {
  using Entry = SparseBlock;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = kLanes;
  static constexpr std::size_t kBlockRows = 768;

  struct Sum {
    __m256i sum[4];

    template <int set>
    [[gnu::always_inline]] void add(const SparseBlock& block, const std::uint8_t* panel) {
      const __m256i w = broadcast(block.weight);
      for (int i = 0; i < 4; ++i) sum[i] = multiply_add(sum[i], load(panel + block.offset + 32 * i), w);
    }
  };

  struct Finish : FinishS8 {
    using FinishS8::FinishS8;
    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      FinishS8::store(of.sum, channel);
    }
  };
};

/// A fused multiply-add takes four cycles and two start in each, so eight sums are kept in flight: four
/// vectors of lanes, twice.
struct Singles {
  using Entry = SparseSingle;
  using Element = float;
  static constexpr std::size_t kLaneBlock = kLanes;
  static constexpr std::size_t kBlockRows = 192;

  struct Sum {
    __m256 sum[2][4];

    template <int set>
    [[gnu::always_inline]] void add(const SparseSingle& single, const float* panel) {
      const __m256 w = _mm256_broadcast_ss(&single.weight);
      for (int i = 0; i < 4; ++i)
        sum[set][i] = _mm256_fmadd_ps(w, _mm256_loadu_ps(panel + single.offset + 8 * i), sum[set][i]);
    }
  };

  class Finish {
   public:
    explicit Finish(const SparseJob& job)
        : job_(job),
          bias_(static_cast<const EpilogueF32*>(job.epilogue)->bias),
          low_(_mm256_set1_ps(static_cast<const EpilogueF32*>(job.epilogue)->low)),
          high_(_mm256_set1_ps(static_cast<const EpilogueF32*>(job.epilogue)->high)) {}

    [[gnu::always_inline]] void store(const Sum& of, std::size_t channel) const {
      const __m256 bias = _mm256_broadcast_ss(bias_ + channel);
      float* out = static_cast<float*>(job_.out) + channel * job_.out_stride;
      float tile[kLanes];
      float* const to = job_.lanes == kLanes ? out : tile;
      for (int i = 0; i < 4; ++i) {
        const __m256 sum = _mm256_add_ps(_mm256_add_ps(of.sum[0][i], of.sum[1][i]), bias);
        // max and min return their second operand where either is NaN.
        _mm256_storeu_ps(to + 8 * i, _mm256_min_ps(high_, _mm256_max_ps(low_, sum)));
      }
      if (to == tile) __builtin_memcpy(out, tile, job_.lanes * sizeof(float));
    }

   private:
    const SparseJob& job_;
    const float* bias_;
    __m256 low_, high_;
  };
};

}  // namespace

void install_sparse_avx2(SparseKernels& slots) {
  slots.quads = sparse_format<Quads>(true);
  slots.blocks = sparse_format<Blocks>(true);
  slots.singles = sparse_format<Singles>(false);
}

}  // namespace gristmill
