#include "kernels/neon/dense_s8_neon.h"
#include "kernels/neon_dotprod/sdot_tile.h"

namespace gristmill {
namespace {

/// Eight lanes, then the others, where the sums of all do not fit the registers.
template <int R, int N>
void split_tile(const std::int8_t* broadcast, const std::int8_t* lane, std::size_t groups,
                std::int32_t* sums) {
  sdot_tile<R, 2>(broadcast, lane, groups, sums);
  sdot_tile<R, N - 2>(broadcast, lane + 32, groups, sums + 8);
}

template <int R, int N>
constexpr TileS8Neon kTile = sdot_tile<R, N>;
template <>
constexpr TileS8Neon kTile<7, 4> = split_tile<7, 4>;
template <>
constexpr TileS8Neon kTile<8, 4> = split_tile<8, 4>;

struct Level {
  static constexpr std::size_t kRowBlock = kSdotRows, kLaneBlock = kSdotLanes;
  static constexpr TileS8Neon kTiles[kRowBlock][kLaneBlock / 4] = {
      {kTile<1, 1>, kTile<1, 2>, kTile<1, 3>, kTile<1, 4>},
      {kTile<2, 1>, kTile<2, 2>, kTile<2, 3>, kTile<2, 4>},
      {kTile<3, 1>, kTile<3, 2>, kTile<3, 3>, kTile<3, 4>},
      {kTile<4, 1>, kTile<4, 2>, kTile<4, 3>, kTile<4, 4>},
      {kTile<5, 1>, kTile<5, 2>, kTile<5, 3>, kTile<5, 4>},
      {kTile<6, 1>, kTile<6, 2>, kTile<6, 3>, kTile<6, 4>},
      {kTile<7, 1>, kTile<7, 2>, kTile<7, 3>, kTile<7, 4>},
      {kTile<8, 1>, kTile<8, 2>, kTile<8, 3>, kTile<8, 4>}};
};

}  // namespace

void install_dense_neon_dotprod(DenseKernels& slots) { install_dense_s8<Level>(slots); }

}  // namespace gristmill
