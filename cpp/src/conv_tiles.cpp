#include "conv_tiles.h"

#include <algorithm>
#include <limits>

#include "checked_size.h"

namespace gristmill {
namespace {

/// A convolution, and how it is cut.
struct TiledConv {
  const ConvCall& conv;
  const WeightKernel& kernel;
  PanelForm panel;
  std::size_t block_bytes;  // of a panel
  std::size_t groups;
  std::size_t group_channels;    // input
  const ShiftedPlanes* shifted;  // or null: then rows and runs of conv.layout
  bool staged;
  std::size_t tiles = 0;      // of an image's group
  std::size_t row_parts = 0;  // of a tile

  std::size_t positions() const { return conv.layout.positions(); }
  std::size_t plane_elements() const {
    return shifted != nullptr ? shifted->plane_elements() : conv.layout.plane_elements();
  }
  /// What padding reads as: an element of a plane.
  std::uint32_t fill() const {
    if (panel.kind == PanelKind::planar_f32) return 0;
    const auto zero = static_cast<std::uint8_t>(conv.input.zero_point);
    return panel.channel_quads ? (zero ^ panel.activations.flip) * 0x01010101u : zero;
  }
  std::size_t planes() const { return conv.input.batch * groups; }
  std::size_t source_rows() const { return panel.rows - panel.repeated.size(); }
  /// Lane blocks of an image's group, the last narrower, or up to half a block wider, than the others.
  std::size_t blocks() const {
    const std::size_t rounding = panel.sparse ? panel.lane_block - 1 : panel.lane_block / 2;
    return std::max<std::size_t>((positions() + rounding) / panel.lane_block, 1);
  }
  /// The first position of a tile; tiles differ by no more than a block.
  std::size_t tile_start(std::size_t tile) const {
    return tile == tiles ? positions() : blocks() * tile / tiles * panel.lane_block;
  }
};

/// Tasks that the rows of a tile are split into: as many as it takes to give every thread two.
std::size_t row_parts(std::size_t tiles, std::size_t threads) {
  return tiles < 2 * threads ? ceil_div(2 * threads, tiles) : 1;
}

/// What the busiest of `threads` takes for that cut, in nanoseconds. Parts of a tile's rows that one thread
/// multiplies are packed once; where threads divide a plane, or take rows that do not follow each other,
/// every row of the output has a cache line that both write to.
double time_of(const TiledConv& tiled, std::size_t rows, std::size_t threads) {
  constexpr double kPack = 0.06, kMultiply = 0.0043;  // for each byte of a panel; the latter for each row
  constexpr double kDividedRow = 13;
  const std::size_t planes = tiled.planes(), blocks = tiled.blocks(), parts = tiled.row_parts;
  const std::size_t tasks = planes * tiled.tiles * parts, most_tasks = ceil_div(tasks, threads);
  const std::size_t most_blocks = ceil_div(blocks, tiled.tiles);
  const bool even = tasks % threads == 0;
  const double multiplied = even ? static_cast<double>(planes * blocks) / static_cast<double>(threads)
                                 : static_cast<double>(most_tasks * most_blocks) / static_cast<double>(parts);
  const std::size_t packings = tiled.panel.sparse ? most_tasks : ceil_div(most_tasks, parts);
  const double packed = parts == 1 ? multiplied : static_cast<double>(packings * most_blocks);
  const int shared_lines =
      (planes % threads != 0 ? (tiled.tiles > 1) + (tiled.panel.sparse && parts > 1) : 0);
  const double multiplying = static_cast<double>(rows) * tiled.kernel.row_time() * kMultiply;
  return static_cast<double>(tiled.block_bytes) * (multiplied * multiplying + packed * kPack) +
         static_cast<double>(rows) * kDividedRow * shared_lines;
}

/// Cuts a convolution such that threads finish early together. Of cuts that take the same time the finest is
/// chosen, up to four tiles for each thread.
void choose_tiles(TiledConv& tiled) {
  const std::size_t most = std::max<std::size_t>(tiled.panel.budget / tiled.block_bytes, 1);
  const std::size_t blocks = tiled.blocks(), planes = tiled.planes(), most_parts = tiled.kernel.most_parts();
  const std::size_t threads = worker_count(planes * blocks * most_parts, tiled.conv.threads);
  const std::size_t rows = tiled.conv.weights.out_channels() / tiled.groups;
  const std::size_t fewest = ceil_div(blocks, most);
  TiledConv cut = tiled;
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t tiles = fewest; tiles <= std::clamp(ceil_div(4 * threads, planes), fewest, blocks);
       ++tiles) {
    cut.tiles = tiles;
    cut.row_parts = threads == 1 ? 1 : std::min(row_parts(planes * tiles, threads), most_parts);
    const double time = time_of(cut, rows, threads);
    if (time > least) continue;
    least = time;
    tiled.tiles = tiles;
    tiled.row_parts = cut.row_parts;
    if (threads == 1) break;
  }
}

/// Where every row of a panel starts, from the start of the group's planes: in elements, or in quads.
void fill_row_offsets(const TiledConv& tiled, std::vector<std::size_t>& offsets) {
  const auto& taps = tiled.conv.layout.tap_offset();
  const std::size_t planes = tiled.group_channels / tiled.panel.plane_channels();
  offsets.resize(planes * taps.size() + tiled.panel.repeated.size());
  std::size_t* offset = offsets.data();
  for (std::size_t c = 0; c < planes; ++c)
    for (std::size_t tap : taps) *offset++ = c * tiled.conv.layout.plane_elements() + tap;
  for (std::uint32_t k : tiled.panel.repeated) *offset++ = offsets[k];
}

/// Derives what is the same for all tiles.
void prepare(const TiledConv& tiled, WorkerScratch& scratch) {
  const ConvCall& conv = tiled.conv;
  if (tiled.panel.kind != PanelKind::planar_f32) {
    scratch.folded_bias.resize(conv.weights.out_channels());
    conv.stage.fold_bias(conv.weights.sums(), tiled.panel.activations.zero_point, scratch.folded_bias);
  }
  if (tiled.shifted == nullptr) fill_row_offsets(tiled, scratch.row_offset);
  scratch.prepared = true;
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

void pack_runs(const TiledConv& tiled, const PackJob& job, std::byte* panel) {
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
    pack_runs(tiled, job, panel);
    return;
  }
  const LaneRun& last = job.runs[job.run_count - 1];
  const std::size_t end = last.source + last.count;
  const std::size_t rows = job.rows, source_k = std::min(rows, tiled.source_rows());
  const auto slack = [&](std::size_t row) { return limit - (job.row_offset[row] + end); };
  job.readable_slack = slack(source_k - 1);
  if (job.readable_slack >= kAmple) {
    pack_runs(tiled, job, panel);
    return;
  }
  std::size_t ample = source_k;
  while (ample > 0 && slack(ample - 1) < kAmple) --ample;
  ample = ample / 4 * 4;
  const std::size_t honest = job.readable_slack;
  if (ample > 0) {
    job.rows = ample;
    job.readable_slack = kAmple;
    pack_runs(tiled, job, panel);
  }
  job.row_offset += ample;
  job.rows = rows - ample;
  job.readable_slack = honest;
  pack_runs(tiled, job, panel + ample * tiled.panel.lane_block * tiled.panel.element());
}

/// Stages planes of an image's group, plane by plane. What is written beyond one is overwritten by the next,
/// and nothing beyond the last.
template <class T, class Stage>
void stage_planes(const TiledConv& tiled, std::size_t first, T* staged, const Stage& stage) {
  const ConvCall& conv = tiled.conv;
  const auto* x = static_cast<const T*>(conv.input.data);
  const std::size_t step = tiled.plane_elements();
  T* const end = staged + tiled.group_channels * step;
  for (std::size_t p = first; staged < end; ++p, staged += step) {
    const PlaneLayout::Span<const T> source{x + p * conv.in_plane(), x + conv.input_elements()};
    if (tiled.shifted != nullptr)
      tiled.shifted->stage(conv.kernels.panel, source.plane, source.end, staged, end);
    else
      stage(source, PlaneLayout::Span<T>{staged, end});
  }
}

/// The same four at a time, as quads.
void stage_quads(const TiledConv& tiled, WorkerScratch& scratch, std::size_t first, std::uint32_t* staged) {
  const ConvCall& conv = tiled.conv;
  const bool shifted = tiled.shifted != nullptr;
  const bool moved = shifted ? tiled.shifted->staged() : conv.layout.staged();
  const std::size_t plane = conv.in_plane(), step = tiled.plane_elements();
  const auto* x = static_cast<const std::uint8_t*>(conv.input.data) + first * plane;
  auto* quads = static_cast<std::uint32_t*>(scratch.plane.reserve(plane * sizeof(std::uint32_t)));
  std::uint32_t* const end = staged + tiled.group_channels / 4 * step;
  for (; staged < end; x += 4 * plane, staged += step) {
    conv.kernels.panel.interleave(x, plane, plane, tiled.panel.activations.flip,
                                  reinterpret_cast<std::uint8_t*>(moved ? quads : staged));
    if (!moved) continue;
    if (shifted)
      tiled.shifted->stage<std::uint32_t>(conv.kernels.panel, quads, quads + plane, staged, end);
    else
      conv.layout.stage({quads, quads + plane}, tiled.fill(), {staged, end});
  }
}

/// Planes of an image's group, from the first on, and how many elements may be read from there.
struct Source {
  const std::byte* planes;
  std::size_t readable;
};

/// Stages an image's group, unless that is what the scratch holds.
Source stage_group(const TiledConv& tiled, WorkerScratch& scratch, std::size_t index) {
  const ConvCall& conv = tiled.conv;
  const PlaneLayout& layout = conv.layout;
  const std::size_t elements =
      checked_product({tiled.group_channels, tiled.plane_elements()}, "x") + PlaneLayout::kSlack;
  void* staged = scratch.staged.reserve(elements * conv.element());
  const std::size_t first = index * tiled.group_channels;
  if (scratch.staged_group == index) {
  } else if (tiled.panel.channel_quads) {
    stage_quads(tiled, scratch, first, static_cast<std::uint32_t*>(staged));
  } else if (tiled.panel.kind == PanelKind::planar_f32) {
    stage_planes(tiled, first, static_cast<float*>(staged),
                 [&](auto source, auto to) { layout.stage(source, to); });
  } else {
    stage_planes(tiled, first, static_cast<std::uint8_t*>(staged), [&](auto source, auto to) {
      layout.stage(source, static_cast<std::uint8_t>(conv.input.zero_point), 0, to);
    });
  }
  scratch.staged_group = index;
  return {static_cast<const std::byte*>(staged), elements};
}

/// A tile that is packed into its worker's scratch.
class ScratchTile final : public Tile {
 public:
  ScratchTile(const TiledConv& tiled, WorkerScratch& scratch, std::size_t index)
      : Tile(index / tiled.tiles / tiled.groups, index / tiled.tiles % tiled.groups,
             tiled.tile_start(index % tiled.tiles),
             tiled.tile_start(index % tiled.tiles + 1) - tiled.tile_start(index % tiled.tiles)),
        tiled_(tiled),
        scratch_(scratch),
        index_(index) {}

  const std::byte* panels() const override {
    const std::size_t lane_block = tiled_.panel.lane_block, blocks = ceil_div(lanes, lane_block);
    auto* panel = static_cast<std::byte*>(scratch_.panel.reserve(blocks * tiled_.block_bytes));
    for (std::size_t b = 0; b < blocks && scratch_.packed_tile != index_; ++b)
      pack(b * lane_block, 0, tiled_.panel.rows, panel + b * tiled_.block_bytes);
    scratch_.packed_tile = index_;
    return panel;
  }

  const std::byte* panel_rows(std::size_t lane, std::size_t panels, std::size_t first_k,
                              std::size_t rows) const override {
    const std::size_t position = (image * tiled_.groups + group) * tiled_.positions() + first + lane;
    const std::size_t packed = position * tiled_.panel.rows + first_k;
    const std::size_t bytes = tiled_.panel.bytes_of(rows);
    auto* panel = static_cast<std::byte*>(scratch_.panel.reserve(panels * bytes));
    for (std::size_t p = 0; p < panels && scratch_.packed_tile != packed; ++p)
      pack(lane + p * tiled_.panel.lane_block, first_k, rows, panel + p * bytes);
    scratch_.packed_tile = packed;
    return panel;
  }

 private:
  std::size_t plane_start() const {
    return (image * tiled_.groups + group) * tiled_.group_channels * tiled_.conv.in_plane();
  }

  Source source() const {
    if (tiled_.staged) return stage_group(tiled_, scratch_, image * tiled_.groups + group);
    const ConvCall& conv = tiled_.conv;
    const std::size_t start = plane_start();
    return {static_cast<const std::byte*>(conv.input.data) + start * conv.element(),
            conv.input_elements() + conv.input.readable_slack - start};
  }

  void pack(std::size_t lane, std::size_t first_k, std::size_t rows, std::byte* panel) const {
    if (tiled_.shifted != nullptr) return pack_shifted(lane, first_k, rows, panel);
    const Source from = source();
    find_runs(tiled_.conv.layout, first + lane, std::min(tiled_.panel.lane_block, lanes - lane),
              scratch_.runs);
    const PackJob job{from.planes,
                      scratch_.row_offset.data() + first_k / tiled_.panel.plane_channels(),
                      rows,
                      scratch_.runs.data(),
                      scratch_.runs.size(),
                      0,
                      tiled_.panel.activations.flip};
    pack_block(tiled_, job, from.readable, panel);
  }

  void pack_shifted(std::size_t lane, std::size_t first_k, std::size_t rows, std::byte* panel) const {
    const ShiftedPlanes& shifted = *tiled_.shifted;
    const std::size_t position = first + lane, taps = shifted.tap_offset().size();
    const std::size_t lane_block = tiled_.panel.lane_block, quad = tiled_.panel.plane_channels();
    auto* masks = static_cast<std::uint8_t*>(scratch_.masks.reserve(taps * kMaskStep));
    if (scratch_.masked_lanes != position)
      shifted.fill_masks(position, std::min(lane_block, lanes - lane), masks);
    scratch_.masked_lanes = position;
    const Source from = source();
    const std::size_t before = position + (tiled_.staged ? 0 : plane_start());
    const ShiftJob job{
        from.planes + position * quad * tiled_.conv.element(),
        shifted.plane_elements(),
        shifted.tap_offset().data(),
        masks,
        taps,
        first_k / quad,
        rows / quad,
        -static_cast<std::ptrdiff_t>(before),
        static_cast<std::ptrdiff_t>(from.readable / quad) - static_cast<std::ptrdiff_t>(position),
        tiled_.fill(),
        tiled_.panel.activations.flip};
    const PanelKernels& kernels = tiled_.conv.kernels.panel;
    if (tiled_.panel.kind == PanelKind::planar_u8)
      kernels.shift_u8(job, lane_block, reinterpret_cast<std::uint8_t*>(panel));
    else
      kernels.shift_u32(job, lane_block, reinterpret_cast<std::uint32_t*>(panel));
  }

  const TiledConv& tiled_;
  WorkerScratch& scratch_;
  const std::size_t index_;
};

void run_task(const TiledConv& tiled, WorkerScratch& scratch, std::size_t task) {
  if (!scratch.prepared) prepare(tiled, scratch);
  const ScratchTile tile(tiled, scratch, task / tiled.row_parts);
  const std::size_t part = task % tiled.row_parts;
  tiled.kernel.multiply(tile, scratch, tiled.kernel.part_start(tile.group, part, tiled.row_parts),
                        tiled.kernel.part_start(tile.group, part + 1, tiled.row_parts));
}

/// The planes for panels of that form, or null if they have to be packed run by run.
const ShiftedPlanes* shifted_planes(const ConvCall& conv, const PanelForm& panel) {
  if (panel.kind == PanelKind::quads && !panel.channel_quads) return nullptr;
  ShiftedPlanes& shifted = conv.buffers.shifted;
  return shifted.lay_out(conv.weights, conv.input.height, conv.input.width) ? &shifted : nullptr;
}

}  // namespace

void conv2d_tiles(const ConvCall& conv, const WeightKernel& kernel) {
  const PanelForm panel = kernel.panel();
  const std::size_t groups = conv.weights.groups();
  const ShiftedPlanes* shifted = shifted_planes(conv, panel);
  const bool moved = shifted != nullptr ? shifted->staged() : conv.layout.staged();
  TiledConv tiled{conv,    kernel,
                  panel,   panel.bytes(),
                  groups,  conv.input.channels / groups,
                  shifted, moved || panel.channel_quads};
  choose_tiles(tiled);
  for_each_task(conv.buffers, tiled.planes() * tiled.tiles * tiled.row_parts, conv.threads,
                [&](WorkerScratch& scratch, std::size_t task) { run_task(tiled, scratch, task); });
}

}  // namespace gristmill
