#include "kernels/neon/dense_s8_neon.h"
#include "kernels/neon_dotprod/sdot_tile.h"

namespace gristmill {
namespace {

template <int R, int N>
constexpr TileS8Neon kTile = sdot_tile<12, R, N>;

struct Level {
  static constexpr std::size_t kRowBlock = kSdotRows, kLaneBlock = 12;
  static constexpr TileS8Neon kTiles[kRowBlock][kLaneBlock / 4] = {
      {kTile<1, 1>, kTile<1, 2>, kTile<1, 3>}, {kTile<2, 1>, kTile<2, 2>, kTile<2, 3>},
      {kTile<3, 1>, kTile<3, 2>, kTile<3, 3>}, {kTile<4, 1>, kTile<4, 2>, kTile<4, 3>},
      {kTile<5, 1>, kTile<5, 2>, kTile<5, 3>}, {kTile<6, 1>, kTile<6, 2>, kTile<6, 3>},
      {kTile<7, 1>, kTile<7, 2>, kTile<7, 3>}, {kTile<8, 1>, kTile<8, 2>, kTile<8, 3>}};
};

}  // namespace

void install_dense_neon_dotprod(DenseKernels& slots) { install_dense_s8<Level>(slots); }

}  // namespace gristmill
