#include <cstddef>
#include <cstdint>

#include "dense_kernels.h"
#include "epilogue_scalar.h"

namespace gristmill {
namespace {

constexpr std::size_t kRowBlock = 4;
constexpr std::size_t kLaneBlock = 8;

/// sum[l] = broadcast row · lane l, for one row of a row block and all lanes of a lane block.
template <class Broadcast, class Lane>
void multiply_row(const Broadcast* row, const Lane* lanes, std::size_t k, std::int32_t (&sum)[kLaneBlock]) {
  for (std::size_t group = 0; group < (k + 3) / 4; ++group) {
    for (std::size_t l = 0; l < kLaneBlock; ++l) {
      for (std::size_t i = 0; i < 4; ++i) {
        sum[l] += row[group * kRowBlock * 4 + i] * lanes[(group * kLaneBlock + l) * 4 + i];
      }
    }
  }
}

/// Broadcast and Lane are s8 where the weights are and u8 where the activations are.
template <ChannelAxis axis, class Broadcast, class Lane>
void multiply(const DenseJob& job) {
  const auto* rows = static_cast<const Broadcast*>(job.broadcast);
  const auto* lanes = static_cast<const Lane*>(job.lane);
  const auto& epilogue = *static_cast<const EpilogueS8*>(job.epilogue);
  const std::size_t row_bytes = (job.k + 3) / 4 * 4;
  for (std::size_t row = 0; row < job.rows; ++row) {
    const std::size_t in_block = row % kRowBlock;
    const Broadcast* row_start = rows + (row - in_block) * row_bytes + in_block * 4;
    for (std::size_t lane = 0; lane < job.lanes; lane += kLaneBlock) {
      std::int32_t sum[kLaneBlock] = {};
      multiply_row(row_start, lanes + lane * row_bytes, job.k, sum);
      for (std::size_t l = 0; l < kLaneBlock && lane + l < job.lanes; ++l) {
        const std::size_t channel = axis == ChannelAxis::rows ? row : lane + l;
        store_s8(epilogue, channel, sum[l], job.out, row * job.out_stride + lane + l);
      }
    }
  }
}

constexpr DenseS8Variant kVariant{
    0,
    {kRowBlock, kLaneBlock, multiply<ChannelAxis::rows, std::int8_t, std::uint8_t>},
    {kRowBlock, kLaneBlock, multiply<ChannelAxis::lanes, std::uint8_t, std::int8_t>},
};

}  // namespace

void install_dense_s8_scalar(DenseKernels& slots) {
  slots.general = kVariant;
  slots.no_saturation = kVariant;
}

}  // namespace gristmill
