#include <cstddef>

#include "dense_kernels.h"
#include "epilogue_scalar.h"

namespace gristmill {
namespace {

constexpr std::size_t kRowBlock = 4;
constexpr std::size_t kLaneBlock = 8;

std::size_t smaller(std::size_t a, std::size_t b) { return a < b ? a : b; }

void multiply_block(const float* broadcast, const float* lane, std::size_t lane_step, std::size_t k,
                    float (&sum)[kRowBlock][kLaneBlock]) {
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t r = 0; r < kRowBlock; ++r) {
      for (std::size_t l = 0; l < kLaneBlock; ++l) {
        sum[r][l] += broadcast[i * kRowBlock + r] * lane[i * lane_step + l];
      }
    }
  }
}

/// body(r, l, at) for the valid outputs of a tile, `at` elements from the first one of all.
template <class Body>
void for_each_output(const DenseJob& job, std::size_t row, std::size_t lane, Body body) {
  for (std::size_t r = 0; r < smaller(kRowBlock, job.rows - row); ++r)
    for (std::size_t l = 0; l < smaller(kLaneBlock, job.lanes - lane); ++l)
      body(r, l, (row + r) * job.out_stride + lane + l);
}

template <ChannelAxis axis>
void multiply(const DenseJob& job) {
  const auto* broadcast = static_cast<const float*>(job.broadcast) + job.first_k * kRowBlock;
  const auto* lanes = static_cast<const float*>(job.lane);
  const auto& epilogue = *static_cast<const EpilogueF32*>(job.epilogue);
  const std::size_t k = job.part_k != 0 ? job.part_k : job.k;
  const std::size_t lane_step = job.lane_stride != 0 ? job.lane_stride : kLaneBlock;
  auto* out = static_cast<float*>(job.out);
  for (std::size_t lane = 0; lane < job.lanes; lane += kLaneBlock) {
    for (std::size_t row = 0; row < job.rows; row += kRowBlock) {
      float sum[kRowBlock][kLaneBlock] = {};
      for_each_output(job, row, lane, [&](std::size_t r, std::size_t l, std::size_t at) {
        if (job.first_k != 0) sum[r][l] = out[at];
      });
      multiply_block(broadcast + row * job.k, lanes + lane * (job.lane_stride != 0 ? 1 : k), lane_step, k,
                     sum);
      for_each_output(job, row, lane, [&](std::size_t r, std::size_t l, std::size_t at) {
        out[at] = sum[r][l];
        if (job.first_k + k != job.k) return;
        out[at] = finish_f32(epilogue, axis == ChannelAxis::rows ? row + r : lane + l, sum[r][l]);
        if (epilogue.residual != nullptr)
          out[at] = clamp_f32(out[at] + epilogue.residual[at], epilogue.sum_low, epilogue.sum_high);
      });
    }
  }
}

}  // namespace

void install_dense_f32_scalar(DenseKernels& slots) {
  slots.f32_channels_in_rows = {kRowBlock, kLaneBlock, multiply<ChannelAxis::rows>};
  slots.f32_channels_in_lanes = {kRowBlock, kLaneBlock, multiply<ChannelAxis::lanes>};
}

}  // namespace gristmill
