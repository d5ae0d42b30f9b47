#include <algorithm>
#include <limits>

#include "cache_budget.h"
#include "checked_size.h"
#include "conv_tiles.h"
#include "packed_weights.h"

namespace gristmill {
namespace {

/// Stored outputs that wait for the epilogue's passes.
constexpr std::size_t kStoredBytes = std::size_t{1} << 16;

class DenseWeightKernel final : public WeightKernel {
 public:
  explicit DenseWeightKernel(const ConvCall& conv)
      : conv_(conv),
        weights_(conv.weights.dense()),
        f32_(weights_.is_f32()),
        in_place_(f32_ && reads_in_place(conv, kernel().lane_block)),
        has_passes_(conv.stage.has_passes() && !conv.stage.adds_in_kernel()) {}

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
    if (has_passes_) {
      const std::size_t fitting = kStoredBytes / (tile.lanes * element_size(conv_.stage.output()));
      step = std::max(fitting / weights_.block(), std::size_t{1}) * weights_.block();
    }
    for (std::size_t row = first_row; row < last_row; row += step)
      multiply_rows(tile, scratch, row, std::min(step, last_row - row));
  }

 private:
  /// Whether planes of the input are the lane operand as they are, and it pays: rows that begin anywhere in a
  /// cache line are slow to read again and again, unless they are short.
  static bool reads_in_place(const ConvCall& conv, std::size_t lane_block) {
    constexpr std::size_t kVector = 16;
    const std::size_t positions = conv.layout.positions();
    if (conv.layout.staged() || conv.layout.tap_offset().size() != 1 || positions != conv.in_plane())
      return false;
    if (positions % kVector == 0) return true;
    return positions < 2 * lane_block && conv.input.readable_slack >= kVector;
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

  void multiply_rows(const Tile& tile, const WorkerScratch& scratch, std::size_t row,
                     std::size_t rows) const {
    const std::size_t channel = tile.group * weights_.rows() + row;
    const std::size_t positions = conv_.layout.positions();
    const std::size_t offset = (tile.image * conv_.weights.out_channels() + channel) * positions + tile.first;
    const bool adds = conv_.stage.adds_in_kernel();
    const float* residual = adds ? static_cast<const float*>(conv_.residual) + offset : nullptr;
    const EpilogueF32 epilogue_f32 = f32_ ? conv_.stage.kernel_f32(channel, residual) : EpilogueF32{};
    const EpilogueS8 epilogue_s8 = f32_ ? EpilogueS8{} : conv_.stage.kernel_s8(scratch.folded_bias, channel);
    const DenseJob job{weights_.at(tile.group, row),
                       in_place_ ? static_cast<const void*>(in_place(tile)) : tile.panels(),
                       weights_.k(),
                       rows,
                       tile.lanes,
                       f32_ ? static_cast<const void*>(&epilogue_f32) : &epilogue_s8,
                       static_cast<std::byte*>(conv_.out) + offset * element_size(conv_.stage.output()),
                       positions,
                       weights_.couples(tile.group, row),
                       in_place_ ? conv_.in_plane() : 0};
    kernel().multiply(job);
    if (has_passes_)
      conv_.stage.finish({conv_.out, conv_.residual, offset, rows, tile.lanes, positions}, conv_.kernels);
  }

  const ConvCall& conv_;
  const PackedWeights& weights_;
  const bool f32_, in_place_, has_passes_;
};

}  // namespace

void conv2d_dense(const ConvCall& conv) { conv2d_tiles(conv, DenseWeightKernel(conv)); }

}  // namespace gristmill
