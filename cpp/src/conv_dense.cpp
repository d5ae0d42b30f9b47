#include <algorithm>
#include <limits>

#include "cache_budget.h"
#include "checked_size.h"
#include "conv_tiles.h"
#include "packed_weights.h"

namespace gristmill {
namespace {

/// Lanes of panels at a time for weights that a cache near the core holds.
constexpr std::size_t kNearLanes = 48;

class DenseWeightKernel final : public WeightKernel {
 public:
  explicit DenseWeightKernel(const ConvCall& conv)
      : conv_(conv),
        weights_(conv.weights.dense()),
        f32_(weights_.is_f32()),
        in_place_(f32_ && reads_in_place(conv, kernel())),
        has_passes_(conv.stage.has_passes() && !conv.stage.adds_in_kernel()),
        sliced_(f32_ && !in_place_ && !has_passes_ && weights_.k() > 0) {}

  PanelForm panel() const override {
    return {f32_ ? PanelKind::planar_f32 : PanelKind::quads,
            kernel().lane_block,
            weights_.k(),
            weights_.repeated(),
            activation_form(conv_.input.type, conv_.input.zero_point, f32_ ? 0 : weights_.variant().flip),
            tile_budget(),
            conv_.weights.has_channel_quads(),
            false,
            kernel().depth};
  }

  std::size_t most_parts() const override { return ceil_div(weights_.rows(), weights_.block()); }

  std::size_t part_start(std::size_t, std::size_t part, std::size_t parts) const override {
    return std::min(most_parts() * part / parts * weights_.block(), weights_.rows());
  }

  void multiply(const Tile& tile, WorkerScratch& scratch, std::size_t first_row,
                std::size_t last_row) const override {
    std::size_t step = last_row - first_row;
    if (sliced_ && step == weights_.rows()) return multiply_slices(tile, scratch);
    if (has_passes_) {
      const std::size_t fitting = panel_budget() / (tile.lanes * element_size(conv_.stage.output()));
      step = std::max(fitting / weights_.block(), std::size_t{1}) * weights_.block();
    }
    for (std::size_t row = first_row; row < last_row; row += step)
      multiply_rows(tile, scratch, row, std::min(step, last_row - row));
  }

 private:
  /// Whether planes of the input are the lane operand as they are, and it pays: rows that begin anywhere in a
  /// cache line are slow to read again and again, unless they are short. A kernel that copies whole lane
  /// blocks reads no more than the last lanes again.
  static bool reads_in_place(const ConvCall& conv, const DenseKernel& kernel) {
    constexpr std::size_t kVector = 16, kManyBlocks = 4;
    const std::size_t positions = conv.layout.positions();
    if (conv.layout.staged() || conv.layout.tap_offset().size() != 1 || positions != conv.in_plane())
      return false;
    if (positions % kVector == 0) return true;
    const bool copied = kernel.copy_bytes != 0 && positions >= kManyBlocks * kernel.lane_block;
    return (copied || positions < 2 * kernel.lane_block) && conv.input.readable_slack >= kVector;
  }

  /// The activations of a tile, whose K are tap 0 of each plane.
  const float* in_place(const Tile& tile) const {
    const std::size_t planes = conv_.input.channels / conv_.weights.groups();
    const std::size_t plane = (tile.image * conv_.weights.groups() + tile.group) * planes;
    return static_cast<const float*>(conv_.input.data) + plane * conv_.in_plane() + tile.first;
  }

  /// Weights that no cache near the core holds should be read for many lanes at once.
  std::size_t tile_budget() const {
    if (in_place_) return std::numeric_limits<std::size_t>::max();
    return f32_ && weights_.bytes() > 2 * panel_budget() ? panel_budget_f32() : panel_budget();
  }

  const DenseKernel& kernel() const {
    return f32_ ? conv_.kernels.dense.f32_channels_in_rows : weights_.variant().channels_in_rows;
  }

  /// Lanes of a tile, and what a kernel reads of them: all of K in place or in panels, or some.
  struct Lanes {
    std::size_t first, count;
    const void* operand;
    std::size_t stride = 0, first_k = 0, part_k = 0;
    float* copies = nullptr;
  };

  /// Output (row, first lane) of all.
  std::size_t offset_of(const Tile& tile, std::size_t row, std::size_t lane) const {
    const std::size_t plane = tile.image * conv_.weights.out_channels() + tile.group * weights_.rows() + row;
    return plane * conv_.layout.positions() + tile.first + lane;
  }

  Lanes lanes_in_place(const Tile& tile, WorkerScratch& scratch) const {
    auto* copies = static_cast<float*>(scratch.panel.reserve(kernel().copy_bytes));
    return {0, tile.lanes, in_place(tile), conv_.in_plane(), 0, 0, copies};
  }

  void multiply_rows(const Tile& tile, WorkerScratch& scratch, std::size_t row, std::size_t rows) const {
    const Lanes lanes = in_place_ ? lanes_in_place(tile, scratch) : Lanes{0, tile.lanes, tile.panels()};
    multiply_lanes(tile, scratch, row, rows, lanes);
    if (!has_passes_) return;
    conv_.stage.finish(
        {conv_.out, conv_.residual, offset_of(tile, row, 0), rows, tile.lanes, conv_.layout.positions()},
        conv_.kernels);
  }

  /// All rows, a slice of K at a time, so that panels are read from the cache that they are packed into.
  /// Weights that a cache near the core holds are read for every lane block anew.
  void multiply_slices(const Tile& tile, const WorkerScratch& scratch) const {
    const std::size_t block = kernel().lane_block, k = weights_.k();
    const bool near = weights_.bytes() < panel_budget();
    const std::size_t slices = ceil_div(k, near ? kernel().near_depth : kernel().far_depth);
    const std::size_t depth = round_up(ceil_div(k, slices), 4);
    const std::size_t step = near ? round_up(kNearLanes, block) : tile.lanes;
    for (std::size_t lane = 0, lanes = 0; lane < tile.lanes; lane += lanes) {
      lanes = tile.lanes - lane < step + block ? tile.lanes - lane : step;
      for (std::size_t first = 0; first < k; first += depth) {
        const std::size_t part = std::min(depth, k - first);
        const std::byte* panels = tile.panel_rows(lane, ceil_div(lanes, block), first, part);
        multiply_lanes(tile, scratch, 0, weights_.rows(), {lane, lanes, panels, 0, first, part});
      }
    }
  }

  void multiply_lanes(const Tile& tile, const WorkerScratch& scratch, std::size_t row, std::size_t rows,
                      const Lanes& lanes) const {
    const std::size_t channel = tile.group * weights_.rows() + row;
    const std::size_t offset = offset_of(tile, row, lanes.first);
    const bool adds = conv_.stage.adds_in_kernel();
    const float* residual = adds ? static_cast<const float*>(conv_.residual) + offset : nullptr;
    const EpilogueF32 epilogue_f32 = f32_ ? conv_.stage.kernel_f32(channel, residual) : EpilogueF32{};
    const EpilogueS8 epilogue_s8 = f32_ ? EpilogueS8{} : conv_.stage.kernel_s8(scratch.folded_bias, channel);
    const DenseJob job{weights_.at(tile.group, row),
                       lanes.operand,
                       weights_.k(),
                       rows,
                       lanes.count,
                       f32_ ? static_cast<const void*>(&epilogue_f32) : &epilogue_s8,
                       static_cast<std::byte*>(conv_.out) + offset * element_size(conv_.stage.output()),
                       conv_.layout.positions(),
                       weights_.couples(tile.group, row),
                       lanes.stride,
                       lanes.first_k,
                       lanes.part_k,
                       lanes.copies};
    kernel().multiply(job);
  }

  const ConvCall& conv_;
  const PackedWeights& weights_;
  const bool f32_, in_place_, has_passes_, sliced_;
};

}  // namespace

void conv2d_dense(const ConvCall& conv) {
  if (!conv2d_sliding(conv)) conv2d_tiles(conv, DenseWeightKernel(conv));
}

}  // namespace gristmill
