#include "linear_batched.h"

#include <algorithm>

#include "activation_form.h"
#include "cache_budget.h"
#include "checked_size.h"

namespace gristmill {
namespace {

/// A call as tiles of lane blocks by channels; a task is one of them, those of equal rows in succession.
struct BatchTiles {
  const BatchCall& call;
  const PackedWeights& weights;
  ActivationForm form;
  std::size_t lane_block, panel_bytes;          // of a lane block
  std::size_t blocks = 0, row_tiles = 0;        // lane blocks of a tile
  std::size_t channels = 0, channel_tiles = 0;  // of a tile
};

/// Outputs of a tile stay in the first-level cache until they are transposed, and weights in the second while
/// all lane blocks of the tile are multiplied.
void choose_tiles(BatchTiles& tiles) {
  constexpr std::size_t kMostChannels = 128, kLeastChannels = 16;
  const std::size_t depth = std::max<std::size_t>(tiles.weights.padded_k(), 1);
  const std::size_t fitting = panel_budget() / 2 / depth / kLeastChannels * kLeastChannels;
  tiles.channels = std::clamp(fitting, kLeastChannels, kMostChannels);
  tiles.channel_tiles = ceil_div(tiles.call.channels(), tiles.channels);
  const std::size_t blocks = ceil_div(tiles.call.input.rows, tiles.lane_block);
  const std::size_t fit = panel_budget() / std::max<std::size_t>(tiles.panel_bytes, 1);
  tiles.row_tiles = ceil_div(blocks, std::max<std::size_t>(fit, 1));
  const std::size_t workers = worker_count(blocks * tiles.channel_tiles, tiles.call.threads);
  if (workers > 1)
    tiles.row_tiles = std::clamp(ceil_div(4 * workers, tiles.channel_tiles), tiles.row_tiles, blocks);
  tiles.blocks = ceil_div(blocks, tiles.row_tiles);
  tiles.row_tiles = ceil_div(blocks, tiles.blocks);
}

/// Whole lane blocks where the last one is multiplied as a whole: they are stored faster.
std::size_t stored_lanes(std::size_t lanes, std::size_t lane_block) {
  return lanes % lane_block > lane_block / 2 + 1 ? round_up(lanes, lane_block) : lanes;
}

void run_task(const BatchTiles& tiles, WorkerScratch& scratch, std::size_t task) {
  const BatchCall& call = tiles.call;
  const std::size_t tile = task / tiles.channel_tiles, tile_rows = tiles.blocks * tiles.lane_block;
  const std::size_t row = tile * tile_rows, rows = std::min(tile_rows, call.input.rows - row);
  const std::size_t channel = task % tiles.channel_tiles * tiles.channels;
  const std::size_t count = std::min(tiles.channels, call.channels() - channel);
  auto* panel = static_cast<std::byte*>(scratch.panel.reserve(tiles.blocks * tiles.panel_bytes));
  if (scratch.packed_tile != tile) {
    for (std::size_t lane = 0; lane < rows; lane += tiles.lane_block)
      pack_quads(call, row + lane, std::min(tiles.lane_block, rows - lane), tiles.lane_block, tiles.form.flip,
                 tiles.weights.repeated(), panel + lane / tiles.lane_block * tiles.panel_bytes);
    scratch.packed_tile = tile;
  }
  void* stored = scratch.staged.reserve(tiles.channels * tile_rows * element_size(call.stage.output()));
  const EpilogueS8 epilogue = call.stage.kernel_s8(call.buffers.folded_bias, channel);
  const DenseJob job{tiles.weights.at(0, channel),
                     panel,
                     tiles.weights.k(),
                     count,
                     stored_lanes(rows, tiles.lane_block),
                     &epilogue,
                     stored,
                     tile_rows,
                     tiles.weights.couples(0, channel)};
  tiles.weights.variant().channels_in_rows.multiply(job);
  unload(call, {stored, tile_rows, row, rows, channel, count});
}

}  // namespace

void linear_batched(const BatchCall& call, const PackedWeights& weights) {
  const DenseS8Variant& variant = weights.variant();
  const std::size_t lane_block = variant.channels_in_rows.lane_block;
  BatchTiles tiles{call, weights, activation_form(call.input.type, call.input.zero_point, variant.flip),
                   lane_block, lane_block * weights.padded_k()};
  call.buffers.folded_bias.resize(weights.rows());
  call.stage.fold_bias(weights.sums(), tiles.form.zero_point, call.buffers.folded_bias);
  if (call.input.rows == 0 || weights.rows() == 0) return;
  choose_tiles(tiles);
  for_each_task(call.buffers, tiles.row_tiles * tiles.channel_tiles, call.threads,
                [&](WorkerScratch& scratch, std::size_t task) { run_task(tiles, scratch, task); });
}

}  // namespace gristmill
