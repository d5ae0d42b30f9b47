#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "dense_kernels.h"
#include "kernels/neon/epilogue_neon.h"

/// Dense int8 multiplication at the NEON levels: the walk over blocks and the epilogue. A level brings its
/// blocks and a table of register tiles:
///
///     struct Level {
///       static constexpr std::size_t kRowBlock, kLaneBlock;
///       static constexpr TileS8Neon kTiles[kRowBlock][kLaneBlock / 4];   [r][n]: r + 1 rows of n + 1 vectors
///     };
///
/// Every level takes activations as s8 (flip 0x80), so that both operands have one type and a tile need not
/// know which of them is the weights.
///
/// Lane blocks are the outer loop: one of them, 4 * kLaneBlock bytes per group, stays in L1 while the row
/// blocks stream past it.
namespace gristmill {
namespace {

/// sums[r * kLaneBlock + l] = row r · lane l over `groups` groups of four K, for the tile's rows and lanes of
/// one row block and one lane block.
using TileS8Neon = void (*)(const std::int8_t* broadcast, const std::int8_t* lane, std::size_t groups,
                            std::int32_t* sums);

[[gnu::always_inline]] inline std::size_t smaller(std::size_t a, std::size_t b) { return a < b ? a : b; }

/// One lane block, of which `lanes` lanes from `lane` on exist, times all rows. channels(row) yields the bias
/// and scale of a row of sums.
template <class Level, class Channels>
[[gnu::always_inline]] inline void multiply_lane_block(const DenseJob& job, std::size_t lane,
                                                       std::size_t lanes, Channels channels) {
  constexpr int kVectors = Level::kLaneBlock / 4;
  const EpilogueNeon epilogue(*static_cast<const EpilogueS8*>(job.epilogue));
  const std::size_t groups = (job.k + 3) / 4;
  const auto* broadcast = static_cast<const std::int8_t*>(job.broadcast);
  const auto* lane_block = static_cast<const std::int8_t*>(job.lane) + lane * groups * 4;
  std::int32_t sums[Level::kRowBlock * Level::kLaneBlock] = {};
  for (std::size_t row = 0; row < job.rows; row += Level::kRowBlock) {
    const std::size_t rows = smaller(Level::kRowBlock, job.rows - row);
    Level::kTiles[rows - 1][(lanes - 1) / 4](broadcast + row * groups * 4, lane_block, groups, sums);
    for (std::size_t r = 0; r < rows; ++r) {
      int32x4_t acc[kVectors];
      for (int n = 0; n < kVectors; ++n) acc[n] = vld1q_s32(sums + r * Level::kLaneBlock + 4 * n);
      epilogue.store<kVectors>(acc, channels(row + r), job.out, (row + r) * job.out_stride + lane, lanes);
    }
  }
}

template <class Level, ChannelAxis axis>
void multiply(const DenseJob& job) {
  const auto& epilogue = *static_cast<const EpilogueS8*>(job.epilogue);
  for (std::size_t lane = 0; lane < job.lanes; lane += Level::kLaneBlock) {
    const std::size_t lanes = smaller(Level::kLaneBlock, job.lanes - lane);
    if constexpr (axis == ChannelAxis::rows) {
      multiply_lane_block<Level>(job, lane, lanes,
                                 [&](std::size_t row) { return OneChannelNeon(epilogue, row); });
    } else {
      using LaneChannels = ManyChannelsNeon<Level::kLaneBlock / 4>;
      const LaneChannels channels(epilogue, lane, lanes);
      multiply_lane_block<Level>(job, lane, lanes,
                                 [&](std::size_t) -> const LaneChannels& { return channels; });
    }
  }
}

template <class Level>
void install_dense_s8(DenseKernels& slots) {
  slots.general = {0x80,
                   {Level::kRowBlock, Level::kLaneBlock, multiply<Level, ChannelAxis::rows>},
                   {Level::kRowBlock, Level::kLaneBlock, multiply<Level, ChannelAxis::lanes>}};
  slots.no_saturation = slots.general;
}

}  // namespace
}  // namespace gristmill
