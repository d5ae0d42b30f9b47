#include <algorithm>

#include "cache_budget.h"
#include "checked_size.h"
#include "conv_plan.h"
#include "packed_weights.h"

namespace gristmill {
namespace {

/// Whether it may pay: where lane blocks are not broken too often.
bool fits(const ConvCall& conv) {
  const DenseKernel& kernel = conv.kernels.dense.f32_channels_in_rows;
  const std::size_t columns = conv.layout.out_columns();
  return conv.weights.is_f32() && conv.weights.dense().k() <= kernel.sliding_k &&
         (columns % kernel.lane_block == 0 || columns >= 8 * kernel.lane_block) &&
         (!conv.stage.has_passes() || conv.stage.adds_in_kernel());
}

/// Whether it does: where matrices of neighbouring rows share elements, which panels copy again and again.
bool pays(const SlidingRows& rows) {
  return rows.advance() != 0 && std::max(rows.floats(1), rows.scratch()) * sizeof(float) <= panel_budget();
}

/// Bands that the rows of an output plane are cut into: as few as keep a band's matrices in a cache, or as
/// many as threads take.
std::size_t bands_of(const ConvCall& conv, const SlidingRows& rows, std::size_t planes) {
  const std::size_t height = conv.layout.out_rows();
  const std::size_t most = (panel_budget() / sizeof(float) - rows.floats(1)) / rows.advance() + 1;
  const std::size_t threads = worker_count(planes * height, conv.threads);
  const std::size_t wanted = threads == 1 ? 1 : ceil_div(4 * threads, planes);
  return std::min(std::max(ceil_div(height, most), wanted), height);
}

void multiply_row(const ConvCall& conv, const SlidingRows& rows, std::size_t plane, std::size_t row,
                  const float* matrix) {
  const PackedWeights& weights = conv.weights.dense();
  const std::size_t group = plane % weights.groups(), channels = weights.rows();
  const std::size_t columns = conv.layout.out_columns(), positions = conv.layout.positions();
  const std::size_t offset = plane * channels * positions + row * columns;
  const float* residual =
      conv.stage.adds_in_kernel() ? static_cast<const float*>(conv.residual) + offset : nullptr;
  const EpilogueF32 epilogue = conv.stage.kernel_f32(group * channels, residual);
  const DenseJob job{weights.at(group, 0),
                     matrix,
                     weights.k(),
                     channels,
                     columns,
                     &epilogue,
                     static_cast<float*>(conv.out) + offset,
                     positions,
                     {},
                     rows.pitch()};
  conv.kernels.dense.f32_channels_in_rows.multiply(job);
}

}  // namespace

bool conv2d_sliding(const ConvCall& conv) {
  if (!fits(conv)) return false;
  SlidingRows& rows = conv.buffers.sliding;
  rows.lay_out(conv.weights, conv.input.height, conv.input.width);
  if (!pays(rows)) return false;
  const std::size_t groups = conv.weights.groups(), planes = conv.input.batch * groups;
  const std::size_t plane_step = conv.input.channels / groups * conv.in_plane();
  const std::size_t bands = bands_of(conv, rows, planes), height = conv.layout.out_rows();
  const std::size_t matrices = rows.floats(ceil_div(height, bands)) * sizeof(float);
  for_each_task(conv.buffers, planes * bands, conv.threads, [&](WorkerScratch& scratch, std::size_t task) {
    const std::size_t plane = task / bands, band = task % bands;
    const std::size_t first = height * band / bands, last = height * (band + 1) / bands;
    const float* x = static_cast<const float*>(conv.input.data) + plane * plane_step;
    auto* matrix = static_cast<float*>(scratch.panel.reserve(matrices));
    auto* split = static_cast<float*>(scratch.plane.reserve(rows.scratch() * sizeof(float)));
    std::fill_n(split, rows.scratch(), 0.0f);
    for (std::size_t row = first; row < last; ++row, matrix += rows.advance()) {
      rows.fill(conv.kernels.panel, x, row, row > first, matrix, split);
      multiply_row(conv, rows, plane, row, matrix);
    }
  });
  return true;
}

}  // namespace gristmill
