#include "kernels/amx/tiles_amx.h"
#include "kernels/avx512vnni/dense_s8_avx512vnni.h"

namespace gristmill {
namespace {

constexpr std::size_t steps_of(std::size_t k) { return (k + kTileDepth - 1) / kTileDepth; }

/// A block of outputs is up to two tiles of rows by four of lanes. Its sums, four tiles at a time, pass
/// through memory to the epilogue:
///
///                   lanes 0..15   16..31   32..47   48..63
///     rows  0..15       tile 0    tile 1 | tile 0   tile 1      a pass over K for the left half, and one
///          16..31       tile 2    tile 3 | tile 2   tile 3      for the right
///
///     rows  0..15       tile 0    tile 1   tile 2   tile 3      with few rows, one pass
template <ChannelAxis axis>
class DenseAmx {
 public:
  static constexpr DenseKernel kernel() {
    return {axis == ChannelAxis::rows ? kTileRows : 1, kLaneBlock, multiply, kTileDepth};
  }

 private:
  static constexpr bool kChannelsInRows = axis == ChannelAxis::rows;
  static constexpr std::size_t kLaneBlock = 4 * kTileLanes, kGroup = kLaneBlock * 4;

  struct alignas(64) Sums {
    std::int32_t of_row[2 * kTileRows][kLaneBlock];
  };

  static void multiply(const DenseJob& job) {
    if (job.rows == 0 || job.lanes == 0) return;
    const DenseAmx dense(job);
    // Weights are packed in whole tiles; of activations no more rows may be read than there are.
    const std::size_t whole = kChannelsInRows ? job.rows : job.rows / kTileRows * kTileRows;
    ConfiguredTiles tiles(whole != 0 ? kTileRows : job.rows);
    for (std::size_t lane = 0; lane < job.lanes; lane += kLaneBlock)
      for (std::size_t row = 0; row < whole; row += 2 * kTileRows) dense.multiply_block(row, whole, lane);
    if (whole == job.rows) return;
    if (whole != 0) tiles.set_rows(job.rows - whole);
    for (std::size_t lane = 0; lane < job.lanes; lane += kLaneBlock)
      dense.multiply_block(whole, job.rows, lane);
  }

  explicit DenseAmx(const DenseJob& job)
      : job_(job), epilogue_(*static_cast<const EpilogueS8*>(job.epilogue)), steps_(steps_of(job.k)) {}

  std::size_t depth() const { return steps_ * kTileDepth; }

  /// Rows row .. end, at most two tiles of them, and one lane block.
  void multiply_block(std::size_t row, std::size_t end, std::size_t lane) const {
    const auto* left = static_cast<const std::uint8_t*>(job_.broadcast) + row * depth();
    const auto* right = static_cast<const std::uint8_t*>(job_.lane) + lane * depth();
    const std::size_t rows = smaller(end - row, 2 * kTileRows);
    const std::size_t lanes = smaller(kLaneBlock, job_.lanes - lane);
    Sums sums;
    const auto run = [&](auto tiles) {
      constexpr int L = tiles.value;
      if (rows <= kTileRows) {
        add<1, L>(left, right, sums.of_row[0]);
      } else {
        add<2, (L > 2 ? 2 : L)>(left, right, sums.of_row[0]);
        if constexpr (L > 2) add<2, L - 2>(left, right + 128, sums.of_row[0] + 2 * kTileLanes);
      }
      store<L>(sums, row, rows, lane, lanes);
    };
    switch ((lanes + kTileLanes - 1) / kTileLanes) {
      case 1:
        return run(Index<1>{});
      case 2:
        return run(Index<2>{});
      case 3:
        return run(Index<3>{});
      default:
        return run(Index<4>{});
    }
  }

  /// R tiles of rows by L of lanes, over all of K.
  template <int R, int L>
  [[gnu::noinline]] void add(const std::uint8_t* left, const std::uint8_t* right, std::int32_t* sums) const {
    constexpr Signed weights = kChannelsInRows ? Signed::left : Signed::right;
    constexpr std::size_t kSumStep = kLaneBlock * sizeof(std::int32_t);
    const std::size_t row_step = kChannelsInRows ? kTileDepth : depth();
    const std::size_t left_step = kChannelsInRows ? kTileBytes : kTileDepth;
    const std::size_t next_rows = kTileRows * depth();
    unroll<R * L>([&](auto tile) GRISTMILL_INLINE { zero_tile<tile.value>(); });
    for (std::size_t step = 0; step < steps_; ++step, left += left_step, right += kTileRows * kGroup) {
      load_tile_once<4>(left, row_step);
      load_tile<6>(right, kGroup);
      multiply_tiles<weights, 0, 4, 6>();
      if constexpr (L > 1) {
        load_tile<7>(right + 64, kGroup);
        multiply_tiles<weights, 1, 4, 7>();
      }
      if constexpr (R > 1) {
        load_tile_once<5>(left + next_rows, row_step);
        multiply_tiles<weights, L, 5, 6>();
        if constexpr (L > 1) multiply_tiles<weights, 3, 5, 7>();
      } else {
        if constexpr (L > 2) {
          load_tile<5>(right + 128, kGroup);
          multiply_tiles<weights, 2, 4, 5>();
        }
        if constexpr (L > 3) {
          load_tile<6>(right + 192, kGroup);
          multiply_tiles<weights, 3, 4, 6>();
        }
      }
    }
    unroll<R * L>([&](auto tile) GRISTMILL_INLINE {
      constexpr std::size_t row = tile.value / L * kTileRows, lane = tile.value % L * kTileLanes;
      store_tile<tile.value>(sums + row * kLaneBlock + lane, kSumStep);
    });
  }

  template <int L>
  void store(const Sums& sums, std::size_t row, std::size_t rows, std::size_t lane, std::size_t lanes) const {
    if constexpr (kChannelsInRows) {
      const bool bytes = epilogue_.type == OutputType::u8 || epilogue_.type == OutputType::s8;
      if (bytes && epilogue_.small_scales) return store_bytes<L>(sums, row, rows, lane, lanes);
    }
    const EpilogueAvx512 epilogue(epilogue_);
    for (std::size_t r = 0; r < rows; ++r) {
      __m512i sum[L];
      unroll<L>([&](auto v) GRISTMILL_INLINE { sum[v] = _mm512_load_si512(sums.of_row[r] + 16 * v); });
      const std::size_t index = (row + r) * job_.out_stride + lane;
      if constexpr (kChannelsInRows)
        epilogue.store<L>(sum, OneChannelAvx512(epilogue_, row + r), job_.out, index, lanes);
      else
        epilogue.store<L>(sum, ManyChannelsAvx512<L>(epilogue_, lane, lanes), job_.out, index, lanes);
    }
  }

  /// What the epilogue does for most layers, with its constants in registers for all rows.
  template <int L>
  void store_bytes(const Sums& sums, std::size_t row, std::size_t rows, std::size_t lane,
                   std::size_t lanes) const {
    const UnpackedBytesAvx512 unpacked(epilogue_);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __mmask64 stored = first_bits(lanes);
    const std::size_t stride = job_.out_stride;
    const std::int32_t* bias = epilogue_.bias + row;
    const float* scale = epilogue_.scale + row;
    auto* out = static_cast<std::uint8_t*>(job_.out) + row * stride + lane;
    for (std::size_t r = 0; r < rows; ++r, out += stride) {
      const __m512i bias_all = _mm512_set1_epi32(bias[r]);
      const __m512 scale_all = _mm512_set1_ps(scale[r]);
      __m512i sum[4];
      unroll<4>([&](auto v) GRISTMILL_INLINE {
        constexpr int filled = v < L ? v : 0;
        sum[v] = _mm512_add_epi32(_mm512_load_si512(sums.of_row[r] + 16 * filled), bias_all);
      });
      const __m512i bytes = _mm512_permutexvar_epi32(order, unpacked(sum, scale_all));
      _mm512_mask_storeu_epi8(out, stored, bytes);
    }
  }

  const DenseJob& job_;
  const EpilogueS8& epilogue_;
  std::size_t steps_;
};

/// Few activations make too little use of the tiles: the weights pass faster through vectors.
void multiply_channels_in_lanes(const DenseJob& job) {
  constexpr std::size_t kFewRows = 3;
  if (job.rows > kFewRows) return DenseAmx<ChannelAxis::lanes>::kernel().multiply(job);
  DenseJob padded = job;
  padded.k = steps_of(job.k) * kTileDepth;
  DenseS8<Avx512Vnni, ChannelAxis::lanes>::kernel().multiply(padded);
}

}  // namespace

void install_dense_amx(DenseKernels& slots) {
  DenseKernel lanes = DenseAmx<ChannelAxis::lanes>::kernel();
  lanes.multiply = multiply_channels_in_lanes;
  slots.general = {0, DenseAmx<ChannelAxis::rows>::kernel(), lanes};
  slots.no_saturation = slots.general;
}

}  // namespace gristmill
