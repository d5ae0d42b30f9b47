#include <algorithm>
#include <span>

#include "cache_budget.h"
#include "checked_size.h"
#include "conv_tiles.h"
#include "sparse_weights.h"

namespace gristmill {
namespace {

/// Panels of a tile together. They are packed one stretch after the other, and sparse weights are read again
/// for every lane block, so that a tile gains nothing from being wide.
constexpr std::size_t kPanelBytes = std::size_t{1} << 17;

class SparseWeightKernel final : public WeightKernel {
 public:
  explicit SparseWeightKernel(const ConvCall& conv) : conv_(conv), weights_(conv.weights.sparse()) {}

  PanelForm panel() const override {
    return {panel_kind(weights_.kind()),
            weights_.format().lane_block,
            weights_.k(),
            {},
            activation_form(conv_.input.type, conv_.input.zero_point, 0),
            kPanelBytes,
            conv_.weights.has_channel_quads(),
            true};
  }

  /// What is executed runs at about half the rate of dense kernels.
  double row_time() const override {
    const std::size_t dense = weights_.channels() * weights_.k();
    return 2.0 * static_cast<double>(weights_.executed_macs()) /
           static_cast<double>(std::max<std::size_t>(dense, 1));
  }

  std::size_t most_parts() const override { return ceil_div(weights_.rows(), kRowChunk); }

  std::size_t part_start(std::size_t group, std::size_t part, std::size_t parts) const override {
    return weights_.part_start(group, part, parts);
  }

  void multiply(const Tile& tile, WorkerScratch& scratch, std::size_t first_row,
                std::size_t last_row) const override {
    const SparseFormat& format = weights_.format();
    const PackedSparse& packed = weights_.group(tile.group);
    const std::size_t positions = conv_.layout.positions(), channel = tile.group * packed.rows;
    const std::size_t start = (tile.image * conv_.weights.out_channels() + channel) * positions + tile.first;
    const bool f32 = weights_.is_f32();
    EpilogueF32 epilogue_f32{};
    const EpilogueS8 epilogue_s8 = f32 ? EpilogueS8{} : conv_.stage.kernel_s8(scratch.folded_bias, channel);
    SparseJob job = sparse_job(packed);
    const bool fresh = scratch.packed_tile == WorkerScratch::kNone;
    job.first_row = first_row;
    job.last_row = last_row;
    job.epilogue = f32 ? static_cast<const void*>(&epilogue_f32) : &epilogue_s8;
    job.out_stride = positions;
    if (packed.k_blocks > 1) job.accumulators = scratch.sums.reserve(packed.rows * format.sum_bytes);
    for (std::size_t lane = 0; lane < tile.lanes; lane += format.lane_block) {
      const std::size_t offset = start + lane;
      job.lanes = std::min(format.lane_block, tile.lanes - lane);
      job.far = (fresh && lane == 0) || packed.entries.size() > panel_budget();
      job.out = static_cast<std::byte*>(conv_.out) + offset * element_size(conv_.stage.output());
      if (f32) epilogue_f32 = conv_.stage.kernel_f32(channel, residual_at(offset));
      for (std::size_t block = 0; block < packed.k_blocks; ++block) {
        const std::size_t first_k = block * packed.k_block;
        job.panel = tile.panel_rows(lane, first_k, std::min(packed.k_block, packed.columns - first_k));
        job.first_block = block;
        job.last_block = block + 1;
        format.multiply(job);
      }
    }
    if (conv_.stage.has_passes() && !conv_.stage.adds_in_kernel()) finish(packed, job, start, tile.lanes);
  }

 private:
  /// What the kernel adds to the element at that place of the output and those behind it; null if it does
  /// not.
  const float* residual_at(std::size_t offset) const {
    return conv_.stage.adds_in_kernel() ? static_cast<const float*>(conv_.residual) + offset : nullptr;
  }

  /// The passes over what jobs have stored: in the order of memory if these are neighbouring channels.
  void finish(const PackedSparse& packed, const SparseJob& job, std::size_t start, std::size_t lanes) const {
    const auto rows = std::span(packed.row_order).subspan(job.first_row, job.last_row - job.first_row);
    if (rows.empty()) return;
    const auto [first, last] = std::ranges::minmax(rows);
    const bool neighbours = last - first + 1 == rows.size();
    const auto finish_rows = [&](std::size_t channel, std::size_t count) {
      conv_.stage.finish(
          {conv_.out, conv_.residual, start + channel * job.out_stride, count, lanes, job.out_stride},
          conv_.kernels);
    };
    if (neighbours) return finish_rows(first, rows.size());
    for (std::uint32_t channel : rows) finish_rows(channel, 1);
  }

  const ConvCall& conv_;
  const SparseWeights& weights_;
};

}  // namespace

void conv2d_sparse(const ConvCall& conv) { conv2d_tiles(conv, SparseWeightKernel(conv)); }

}  // namespace gristmill
