#include "calibrate_kernels.h"
#include "kernels/amx/tiles_amx.h"

namespace gristmill {
namespace {

/// Tiles are no values of C++, so nothing can be hoisted or merged.
std::uint64_t int8_macs(std::uint64_t rounds, std::uint32_t* sink) {
  alignas(64) std::uint32_t tile[kTileRows][kTileLanes];
  for (auto& row : tile)
    for (std::uint32_t& word : row) word = *sink;
  const ConfiguredTiles configured(kTileRows);
  constexpr std::size_t kStep = sizeof tile[0];
  load_tile<0>(tile, kStep), load_tile<1>(tile, kStep), load_tile<2>(tile, kStep), load_tile<3>(tile, kStep);
  load_tile<4>(tile, kStep), load_tile<6>(tile, kStep);
  for (std::uint64_t r = 0; r < rounds; ++r) {
    multiply_tiles<Signed::left, 0, 4, 6>();
    multiply_tiles<Signed::left, 1, 4, 6>();
    multiply_tiles<Signed::left, 2, 4, 6>();
    multiply_tiles<Signed::left, 3, 4, 6>();
  }
  *sink = 0;
  const auto add = [&] { *sink += tile[0][0]; };
  store_tile<0>(tile, kStep), add(), store_tile<1>(tile, kStep), add();
  store_tile<2>(tile, kStep), add(), store_tile<3>(tile, kStep), add();
  return rounds * 4 * kTileRows * kTileLanes * kTileDepth;
}

}  // namespace

void install_calibrate_amx(CalibrateKernels& slots) { slots.int8_macs = int8_macs; }

}  // namespace gristmill
