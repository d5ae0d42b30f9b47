#include <algorithm>

#include "cache_budget.h"
#include "checked_size.h"
#include "conv_plan.h"
#include "packed_weights.h"

namespace gristmill {
namespace {

/// Staged images of one pass: enough to give threads work, few enough to stay in the last cache.
constexpr std::size_t kStagedBytes = std::size_t{1} << 20;

/// Stored outputs that wait for the epilogue's passes.
constexpr std::size_t kStoredBytes = std::size_t{1} << 16;

/// A convolution as tiles of lane blocks. A task is a tile, or some rows of it where tiles are few.
struct DenseConv {
  const ConvCall& conv;
  const PackedWeights& weights;
  ActivationForm form;
  std::size_t lane_block, block_bytes;  // of a panel
  std::size_t tile_blocks, tiles;       // of an image's group
  std::size_t task_rows, row_tasks;     // of a tile
  std::size_t first_image = 0;          // of this pass
  std::size_t group_channels;           // input
  bool staged;

  std::size_t positions() const { return conv.layout.positions(); }
};

/// Tasks that the rows of a tile are split into: as many as it takes to give every thread two.
std::size_t row_parts(std::size_t tiles, std::size_t threads) {
  return threads > 1 && tiles < 2 * threads ? ceil_div(2 * threads, tiles) : 1;
}

/// Lane blocks of a tile, of `least` to `most`, such that threads finish early together. The time is that of
/// the thread with most tasks; each further part of a tile's rows packs the tile again.
std::size_t balanced_tile(std::size_t least, std::size_t most, std::size_t blocks, std::size_t planes,
                          std::size_t threads) {
  const auto time = [&](std::size_t size) {
    constexpr std::size_t kMultiply = 32;  // in units of the time to pack
    const std::size_t tiles = planes * ceil_div(blocks, size), parts = row_parts(tiles, threads);
    return ceil_div(tiles * parts, threads) * size * (kMultiply + parts) / parts;
  };
  std::size_t best = most;
  for (std::size_t size = most; size >= least; --size)
    if (time(size) < time(best)) best = size;
  return best;
}

void choose_tiles(DenseConv& dense, std::size_t images) {
  const std::size_t blocks = ceil_div(dense.positions(), dense.lane_block);
  const std::size_t most = std::clamp<std::size_t>(panel_budget() / dense.block_bytes, 1, blocks);
  const std::size_t planes = images * dense.weights.groups();
  const std::size_t row_blocks = ceil_div(dense.weights.rows(), dense.weights.block());
  const std::size_t threads = worker_count(planes * blocks * row_blocks, dense.conv.threads);
  if (threads == 1) {
    dense.tile_blocks = ceil_div(blocks, ceil_div(blocks, most));
  } else {
    // Four tiles for each thread, of 64 lanes at least, where there is so much; else up to 256 lanes.
    const std::size_t least = std::min(ceil_div(64, dense.lane_block), most);
    const std::size_t wanted = std::max(blocks * planes / (4 * threads), 4 * least);
    dense.tile_blocks = balanced_tile(least, std::min(wanted, most), blocks, planes, threads);
  }
  dense.tiles = ceil_div(blocks, dense.tile_blocks);
  const std::size_t parts = row_parts(planes * dense.tiles, threads);
  const std::size_t task_blocks = ceil_div(row_blocks, std::min(parts, row_blocks));
  dense.task_rows = task_blocks * dense.weights.block();
  dense.row_tasks = ceil_div(row_blocks, task_blocks);
}

/// Where every row of a panel starts, from the start of the group's planes.
void fill_row_offsets(const DenseConv& dense, std::vector<std::size_t>& offsets) {
  const auto& taps = dense.conv.layout.tap_offset();
  offsets.clear();
  for (std::size_t c = 0; c < dense.group_channels; ++c)
    for (std::size_t tap : taps) offsets.push_back(c * dense.conv.layout.plane_elements() + tap);
  for (std::uint32_t k : dense.weights.repeated()) offsets.push_back(offsets[k]);
}

/// The runs of `count` output positions from `first` on.
void find_runs(const PlaneLayout& layout, std::size_t first, std::size_t count, std::vector<LaneRun>& runs) {
  runs.clear();
  if (layout.row_step() == layout.out_columns()) {
    runs.push_back({first, 0, static_cast<std::uint32_t>(count)});
    return;
  }
  std::size_t row = first / layout.out_columns(), column = first % layout.out_columns();
  for (std::size_t lane = 0; lane < count;) {
    const std::size_t run = std::min(layout.out_columns() - column, count - lane);
    runs.push_back({row * layout.row_step() + column, static_cast<std::uint32_t>(lane),
                    static_cast<std::uint32_t>(run)});
    lane += run;
    column = 0;
    ++row;
  }
}

void pack(const DenseConv& dense, const PackJob& job, void* panel) {
  if (dense.weights.is_f32())
    dense.conv.kernels.panel.pack_planar_f32(job, dense.lane_block, static_cast<float*>(panel));
  else
    dense.conv.kernels.panel.pack_quads(job, dense.lane_block, static_cast<std::uint8_t*>(panel));
}

/// Packs one lane block. Only the rows that end near the end of the input are packed without reading beyond.
void pack_block(const DenseConv& dense, PackJob job, std::size_t limit, std::byte* panel) {
  constexpr std::size_t kAmple = 63;
  const LaneRun& last = job.runs[job.run_count - 1];
  const std::size_t end = last.source + last.count;
  const std::size_t source_k = dense.weights.source_k(), rows = job.rows;
  const auto slack = [&](std::size_t row) { return limit - (job.row_offset[row] + end); };
  // Tap offsets of staged planes need not ascend, but those have slack for the last plane's reach.
  job.readable_slack = slack(source_k - 1);
  if (dense.staged || job.readable_slack >= kAmple) {
    job.readable_slack = dense.staged ? PlaneLayout::kSlack : job.readable_slack;
    pack(dense, job, panel);
    return;
  }
  std::size_t ample = source_k;
  while (ample > 0 && slack(ample - 1) < kAmple) --ample;
  ample = ample / 4 * 4;
  const std::size_t honest = job.readable_slack;
  if (ample > 0) {
    job.rows = ample;
    job.readable_slack = kAmple;
    pack(dense, job, panel);
  }
  job.row_offset += ample;
  job.rows = rows - ample;
  job.readable_slack = honest;
  pack(dense, job, panel + ample * dense.lane_block * dense.weights.element_size());
}

struct Tile {
  std::size_t image, group, first, blocks, lanes;  // first position, lane blocks, valid lanes
};

Tile tile_of(const DenseConv& dense, std::size_t index) {
  const std::size_t plane = index / dense.tiles;
  const std::size_t first = index % dense.tiles * dense.tile_blocks * dense.lane_block;
  const std::size_t lanes = std::min(dense.tile_blocks * dense.lane_block, dense.positions() - first);
  return {dense.first_image + plane / dense.weights.groups(), plane % dense.weights.groups(), first,
          ceil_div(lanes, dense.lane_block), lanes};
}

void pack_tile(const DenseConv& dense, WorkerScratch& scratch, const Tile& tile) {
  const ConvCall& conv = dense.conv;
  const std::size_t plane = conv.layout.plane_elements();
  const std::size_t image = dense.staged ? tile.image - dense.first_image : tile.image;
  const std::size_t start = (image * conv.input.channels + tile.group * dense.group_channels) * plane;
  const auto* source =
      static_cast<const std::byte*>(dense.staged ? conv.buffers.staged.data() : conv.input.data);
  const std::size_t limit = conv.input_elements() + conv.input.readable_slack - (dense.staged ? 0 : start);
  PackJob job{source + start * conv.element(),
              conv.buffers.row_offset.data(),
              dense.weights.k(),
              nullptr,
              0,
              0,
              dense.form.flip};
  auto* panel = static_cast<std::byte*>(scratch.panel.reserve(dense.tile_blocks * dense.block_bytes));
  for (std::size_t block = 0; block < tile.blocks; ++block) {
    const std::size_t first = block * dense.lane_block;
    find_runs(conv.layout, tile.first + first, std::min(dense.lane_block, tile.lanes - first), scratch.runs);
    job.runs = scratch.runs.data();
    job.run_count = scratch.runs.size();
    pack_block(dense, job, limit, panel + block * dense.block_bytes);
  }
}

/// Multiplies rows [row, row + rows) of the group by the packed tile.
void multiply(const DenseConv& dense, const void* panel, const Tile& tile, std::size_t row,
              std::size_t rows) {
  const ConvCall& conv = dense.conv;
  const bool f32 = dense.weights.is_f32();
  const std::size_t channel = tile.group * dense.weights.rows() + row;
  const std::size_t offset =
      (tile.image * conv.weights.out_channels() + channel) * dense.positions() + tile.first;
  const EpilogueF32 epilogue_f32 = f32 ? conv.stage.kernel_f32(channel) : EpilogueF32{};
  const EpilogueS8 epilogue_s8 = f32 ? EpilogueS8{} : conv.stage.kernel_s8(conv.buffers.folded_bias, channel);
  const DenseJob job{dense.weights.at(tile.group, row),
                     panel,
                     dense.weights.k(),
                     rows,
                     tile.lanes,
                     f32 ? static_cast<const void*>(&epilogue_f32) : &epilogue_s8,
                     static_cast<std::byte*>(conv.out) + offset * element_size(conv.stage.output()),
                     dense.positions(),
                     dense.weights.excess(tile.group, row)};
  (f32 ? conv.kernels.dense.f32_channels_in_rows : dense.weights.variant().channels_in_rows)(job);
  if (conv.stage.has_passes())
    conv.stage.finish({conv.out, conv.residual, offset, rows, tile.lanes, dense.positions()}, conv.kernels);
}

void run_task(const DenseConv& dense, WorkerScratch& scratch, std::size_t task) {
  const std::size_t index = task / dense.row_tasks;
  const Tile tile = tile_of(dense, index);
  if (scratch.packed_tile != index) pack_tile(dense, scratch, tile);
  scratch.packed_tile = index;
  const std::size_t first = task % dense.row_tasks * dense.task_rows;
  const std::size_t end = std::min(first + dense.task_rows, dense.weights.rows());
  std::size_t step = end - first;
  if (dense.conv.stage.has_passes()) {
    const std::size_t fitting = kStoredBytes / (tile.lanes * element_size(dense.conv.stage.output()));
    step = std::max(fitting / dense.weights.block(), std::size_t{1}) * dense.weights.block();
  }
  for (std::size_t row = first; row < end; row += step)
    multiply(dense, scratch.panel.data(), tile, row, std::min(step, end - row));
}

/// Stages planes [first, end) of a pass. Planes are staged in ascending order, so that what is written beyond
/// one is overwritten by the next, and nothing beyond the last.
template <class T, class Stage>
void stage_planes(const DenseConv& dense, std::size_t first, std::size_t end, const Stage& stage) {
  const ConvCall& conv = dense.conv;
  const auto* x = static_cast<const T*>(conv.input.data);
  const std::size_t skipped = dense.first_image * conv.input.channels, step = conv.layout.plane_elements();
  T* staged = conv.buffers.staged.data<T>();
  for (std::size_t p = first; p < end; ++p)
    stage(PlaneLayout::Span<const T>{x + (skipped + p) * conv.in_plane(), x + conv.input_elements()},
          PlaneLayout::Span<T>{staged + p * step, staged + end * step});
}

/// Stages `images` images from dense.first_image on.
void stage_images(const DenseConv& dense, std::size_t images) {
  const ConvCall& conv = dense.conv;
  const PlaneLayout& layout = conv.layout;
  const std::size_t planes = images * conv.input.channels;
  const std::size_t elements = checked_product({planes, layout.plane_elements()}, "x") + PlaneLayout::kSlack;
  conv.buffers.staged.reserve(elements * conv.element());
  const std::size_t step = std::max<std::size_t>((std::size_t{1} << 15) / (layout.plane_elements() + 1), 1);
  for_each_task(conv.buffers, ceil_div(planes, step), conv.threads, [&](WorkerScratch&, std::size_t task) {
    const std::size_t first = task * step, end = std::min(planes, first + step);
    if (dense.weights.is_f32())
      stage_planes<float>(dense, first, end, [&](auto source, auto staged) { layout.stage(source, staged); });
    else
      stage_planes<std::uint8_t>(dense, first, end, [&](auto source, auto staged) {
        layout.stage(source, static_cast<std::uint8_t>(conv.input.zero_point), 0, staged);
      });
  });
}

}  // namespace

void conv2d_dense(const ConvCall& conv) {
  const PackedWeights& weights = conv.weights.dense();
  const bool f32 = weights.is_f32();
  const std::size_t lane_block = f32 ? conv.kernels.dense.f32_lane_block : weights.variant().lane_block;
  DenseConv dense{conv,
                  weights,
                  activation_form(conv.input.type, conv.input.zero_point, f32 ? 0 : weights.variant().flip),
                  lane_block,
                  lane_block * weights.padded_k() * weights.element_size(),
                  0,
                  0,
                  0,
                  0,
                  0,
                  conv.input.channels / weights.groups(),
                  conv.layout.staged()};
  if (!f32) {
    conv.buffers.folded_bias.resize(weights.channels());
    conv.stage.fold_bias(weights.sums(), dense.form.zero_point, conv.buffers.folded_bias);
  }
  fill_row_offsets(dense, conv.buffers.row_offset);
  const std::size_t image_bytes = conv.input.channels * conv.layout.plane_elements() * conv.element();
  const std::size_t step = dense.staged
                               ? std::clamp<std::size_t>(kStagedBytes / image_bytes, 1, conv.input.batch)
                               : conv.input.batch;
  for (; dense.first_image < conv.input.batch; dense.first_image += step) {
    const std::size_t images = std::min(step, conv.input.batch - dense.first_image);
    if (dense.staged) stage_images(dense, images);
    choose_tiles(dense, images);
    const std::size_t tasks = images * weights.groups() * dense.tiles * dense.row_tasks;
    for_each_task(conv.buffers, tasks, conv.threads,
                  [&](WorkerScratch& scratch, std::size_t task) { run_task(dense, scratch, task); });
  }
}

}  // namespace gristmill
