#include "conv_tiles.h"

#include <algorithm>

#include "checked_size.h"

namespace gristmill {
namespace {

/// Staged images of one pass: enough to give threads work, few enough to stay in the last cache.
constexpr std::size_t kStagedBytes = std::size_t{1} << 20;

/// A convolution, and how one pass of it is cut.
struct TiledConv {
  const ConvCall& conv;
  const WeightKernel& kernel;
  PanelForm panel;
  std::size_t block_bytes;  // of a panel
  std::size_t groups;
  std::size_t group_channels;  // input
  bool staged;
  std::size_t first_image = 0;             // of this pass
  std::size_t tile_blocks = 0, tiles = 0;  // of an image's group
  std::size_t row_parts = 0;               // of a tile

  std::size_t positions() const { return conv.layout.positions(); }
  std::size_t source_rows() const { return panel.rows - panel.repeated.size(); }
  std::size_t tile_lanes() const { return tile_blocks * panel.lane_block; }
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

void choose_tiles(TiledConv& tiled, std::size_t images) {
  const std::size_t lane_block = tiled.panel.lane_block, blocks = ceil_div(tiled.positions(), lane_block);
  const std::size_t most = std::clamp<std::size_t>(tiled.panel.budget / tiled.block_bytes, 1, blocks);
  const std::size_t planes = images * tiled.groups, most_parts = tiled.kernel.most_parts();
  const std::size_t threads = worker_count(planes * blocks * most_parts, tiled.conv.threads);
  if (threads == 1) {
    tiled.tile_blocks = ceil_div(blocks, ceil_div(blocks, most));
  } else {
    // Four tiles for each thread, of 64 lanes at least, where there is so much; else up to 256 lanes.
    const std::size_t least = std::min(ceil_div(64, lane_block), most);
    const std::size_t wanted = std::max(blocks * planes / (4 * threads), 4 * least);
    tiled.tile_blocks = balanced_tile(least, std::min(wanted, most), blocks, planes, threads);
  }
  tiled.tiles = ceil_div(blocks, tiled.tile_blocks);
  tiled.row_parts = std::min(row_parts(planes * tiled.tiles, threads), most_parts);
}

/// Where every row of a panel starts, from the start of the group's planes: in elements, or in quads.
void fill_row_offsets(const TiledConv& tiled, std::vector<std::size_t>& offsets) {
  const auto& taps = tiled.conv.layout.tap_offset();
  offsets.clear();
  for (std::size_t c = 0; c < tiled.group_channels / tiled.panel.plane_channels(); ++c)
    for (std::size_t tap : taps) offsets.push_back(c * tiled.conv.layout.plane_elements() + tap);
  for (std::uint32_t k : tiled.panel.repeated) offsets.push_back(offsets[k]);
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

void pack(const TiledConv& tiled, const PackJob& job, std::byte* panel) {
  const PanelKernels& pack = tiled.conv.kernels.panel;
  const std::size_t lanes = tiled.panel.lane_block;
  auto* bytes = reinterpret_cast<std::uint8_t*>(panel);
  if (tiled.panel.channel_quads) {  // which are moved as floats are
    PackJob quads = job;
    quads.rows = job.rows / 4;
    return pack.pack_planar_f32(quads, lanes, reinterpret_cast<float*>(panel));
  }
  switch (tiled.panel.kind) {
    case PanelKind::quads:
      return pack.pack_quads(job, lanes, bytes);
    case PanelKind::planar_u8:
      return pack.pack_planar_u8(job, lanes, bytes);
    case PanelKind::planar_f32:
      return pack.pack_planar_f32(job, lanes, reinterpret_cast<float*>(panel));
  }
}

/// Packs one lane block. Only the rows that end near the end of the input are packed without reading beyond.
void pack_block(const TiledConv& tiled, PackJob job, std::size_t limit, std::byte* panel) {
  constexpr std::size_t kAmple = 63;
  if (tiled.staged) {
    job.readable_slack = PlaneLayout::kSlack;
    pack(tiled, job, panel);
    return;
  }
  const LaneRun& last = job.runs[job.run_count - 1];
  const std::size_t end = last.source + last.count;
  const std::size_t rows = job.rows, source_k = std::min(rows, tiled.source_rows());
  const auto slack = [&](std::size_t row) { return limit - (job.row_offset[row] + end); };
  job.readable_slack = slack(source_k - 1);
  if (job.readable_slack >= kAmple) {
    pack(tiled, job, panel);
    return;
  }
  std::size_t ample = source_k;
  while (ample > 0 && slack(ample - 1) < kAmple) --ample;
  ample = ample / 4 * 4;
  const std::size_t honest = job.readable_slack;
  if (ample > 0) {
    job.rows = ample;
    job.readable_slack = kAmple;
    pack(tiled, job, panel);
  }
  job.row_offset += ample;
  job.rows = rows - ample;
  job.readable_slack = honest;
  pack(tiled, job, panel + ample * tiled.panel.lane_block * tiled.panel.element());
}

/// A tile that is packed into its worker's scratch.
class ScratchTile final : public Tile {
 public:
  ScratchTile(const TiledConv& tiled, WorkerScratch& scratch, std::size_t index)
      : Tile(tiled.first_image + index / tiled.tiles / tiled.groups, index / tiled.tiles % tiled.groups,
             index % tiled.tiles * tiled.tile_lanes(),
             std::min(tiled.tile_lanes(), tiled.positions() - index % tiled.tiles * tiled.tile_lanes())),
        tiled_(tiled),
        scratch_(scratch),
        index_(index) {}

  const std::byte* panels() const override {
    const std::size_t lane_block = tiled_.panel.lane_block, blocks = ceil_div(lanes, lane_block);
    auto* panel = static_cast<std::byte*>(scratch_.panel.reserve(tiled_.tile_blocks * tiled_.block_bytes));
    for (std::size_t b = 0; b < blocks && scratch_.packed_tile != index_; ++b)
      pack(b * lane_block, 0, tiled_.panel.rows, panel + b * tiled_.block_bytes);
    scratch_.packed_tile = index_;
    return panel;
  }

  const std::byte* panel_rows(std::size_t lane, std::size_t first_k, std::size_t rows) const override {
    const std::size_t lane_block = index_ * tiled_.tile_blocks + lane / tiled_.panel.lane_block;
    const std::size_t packed = lane_block * tiled_.panel.rows + first_k;
    auto* panel = static_cast<std::byte*>(scratch_.panel.reserve(tiled_.panel.bytes_of(rows)));
    if (scratch_.packed_tile != packed) pack(lane, first_k, rows, panel);
    scratch_.packed_tile = packed;
    return panel;
  }

 private:
  void pack(std::size_t lane, std::size_t first_k, std::size_t rows, std::byte* panel) const {
    const ConvCall& conv = tiled_.conv;
    const std::size_t plane = conv.layout.plane_elements(), lane_block = tiled_.panel.lane_block;
    const std::size_t channel = group * tiled_.group_channels;
    const std::size_t start =
        ((tiled_.staged ? image - tiled_.first_image : image) * conv.input.channels + channel) * plane;
    const auto* source =
        static_cast<const std::byte*>(tiled_.staged ? conv.buffers.staged.data() : conv.input.data);
    const std::size_t limit = conv.input_elements() + conv.input.readable_slack - (tiled_.staged ? 0 : start);
    find_runs(conv.layout, first + lane, std::min(lane_block, lanes - lane), scratch_.runs);
    const PackJob job{source + start * conv.element(),
                      conv.buffers.row_offset.data() + first_k / tiled_.panel.plane_channels(),
                      rows,
                      scratch_.runs.data(),
                      scratch_.runs.size(),
                      0,
                      tiled_.panel.activations.flip};
    pack_block(tiled_, job, limit, panel);
  }

  const TiledConv& tiled_;
  WorkerScratch& scratch_;
  const std::size_t index_;
};

void run_task(const TiledConv& tiled, WorkerScratch& scratch, std::size_t task) {
  const ScratchTile tile(tiled, scratch, task / tiled.row_parts);
  const std::size_t part = task % tiled.row_parts;
  tiled.kernel.multiply(tile, scratch, tiled.kernel.part_start(tile.group, part, tiled.row_parts),
                        tiled.kernel.part_start(tile.group, part + 1, tiled.row_parts));
}

/// Stages planes [first, end) of a pass. Planes are staged in ascending order, so that what is written beyond
/// one is overwritten by the next, and nothing beyond the last.
template <class T, class Stage>
void stage_planes(const TiledConv& tiled, std::size_t first, std::size_t end, const Stage& stage) {
  const ConvCall& conv = tiled.conv;
  const auto* x = static_cast<const T*>(conv.input.data);
  const std::size_t skipped = tiled.first_image * conv.input.channels, step = conv.layout.plane_elements();
  T* staged = conv.buffers.staged.data<T>();
  for (std::size_t p = first; p < end; ++p)
    stage(PlaneLayout::Span<const T>{x + (skipped + p) * conv.in_plane(), x + conv.input_elements()},
          PlaneLayout::Span<T>{staged + p * step, staged + end * step});
}

/// Stages planes [first, end) of a pass, four at a time, as quads.
void stage_quads(const TiledConv& tiled, WorkerScratch& scratch, std::size_t first, std::size_t end) {
  const ConvCall& conv = tiled.conv;
  const PlaneLayout& layout = conv.layout;
  const std::uint8_t flip = tiled.panel.activations.flip;
  const std::uint32_t fill = static_cast<std::uint8_t>(conv.input.zero_point ^ flip) * 0x01010101u;
  const std::size_t plane = conv.in_plane(), step = layout.plane_elements();
  const auto* x =
      static_cast<const std::uint8_t*>(conv.input.data) + tiled.first_image * conv.input.channels * plane;
  auto* staged = conv.buffers.staged.data<std::uint32_t>();
  scratch.plane.reserve(plane * sizeof(std::uint32_t));
  auto* quads = scratch.plane.data<std::uint32_t>();
  for (std::size_t p = first; p < end; p += 4) {
    std::uint32_t* out = staged + p / 4 * step;
    conv.kernels.panel.interleave(x + p * plane, plane, plane, flip,
                                  reinterpret_cast<std::uint8_t*>(layout.staged() ? quads : out));
    if (layout.staged()) layout.stage({quads, quads + plane}, fill, {out, staged + end / 4 * step});
  }
}

/// Stages `images` images from tiled.first_image on.
void stage_images(const TiledConv& tiled, std::size_t images) {
  const ConvCall& conv = tiled.conv;
  const PlaneLayout& layout = conv.layout;
  const std::size_t planes = images * conv.input.channels;
  const std::size_t elements = checked_product({planes, layout.plane_elements()}, "x") + PlaneLayout::kSlack;
  conv.buffers.staged.reserve(elements * conv.element());
  const std::size_t fitting = (std::size_t{1} << 13) / (layout.plane_elements() + 1);
  const std::size_t step = std::max(fitting / 4 * 4, tiled.panel.plane_channels());
  for_each_task(conv.buffers, ceil_div(planes, step), conv.threads,
                [&](WorkerScratch& scratch, std::size_t task) {
                  const std::size_t first = task * step, end = std::min(planes, first + step);
                  if (tiled.panel.channel_quads)
                    stage_quads(tiled, scratch, first, end);
                  else if (tiled.panel.kind == PanelKind::planar_f32)
                    stage_planes<float>(tiled, first, end,
                                        [&](auto source, auto staged) { layout.stage(source, staged); });
                  else
                    stage_planes<std::uint8_t>(tiled, first, end, [&](auto source, auto staged) {
                      layout.stage(source, static_cast<std::uint8_t>(conv.input.zero_point), 0, staged);
                    });
                });
}

}  // namespace

void conv2d_tiles(const ConvCall& conv, const WeightKernel& kernel) {
  const PanelForm panel = kernel.panel();
  const std::size_t groups = conv.weights.groups();
  TiledConv tiled{conv,
                  kernel,
                  panel,
                  panel.bytes(),
                  groups,
                  conv.input.channels / groups,
                  conv.layout.staged() || panel.channel_quads};
  if (panel.kind != PanelKind::planar_f32) {
    conv.buffers.folded_bias.resize(conv.weights.out_channels());
    conv.stage.fold_bias(conv.weights.sums(), panel.activations.zero_point, conv.buffers.folded_bias);
  }
  fill_row_offsets(tiled, conv.buffers.row_offset);
  const std::size_t image_bytes = conv.input.channels * conv.layout.plane_elements() * conv.element();
  const std::size_t step = tiled.staged
                               ? std::clamp<std::size_t>(kStagedBytes / image_bytes, 1, conv.input.batch)
                               : conv.input.batch;
  for (; tiled.first_image < conv.input.batch; tiled.first_image += step) {
    const std::size_t images = std::min(step, conv.input.batch - tiled.first_image);
    if (tiled.staged) stage_images(tiled, images);
    choose_tiles(tiled, images);
    const std::size_t tasks = images * groups * tiled.tiles * tiled.row_parts;
    for_each_task(conv.buffers, tasks, conv.threads,
                  [&](WorkerScratch& scratch, std::size_t task) { run_task(tiled, scratch, task); });
  }
}

}  // namespace gristmill
