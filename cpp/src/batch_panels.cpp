#include "batch_panels.h"

namespace gristmill {

void pack_quads(const BatchCall& call, std::size_t row, std::size_t lanes, std::size_t lane_block,
                std::uint8_t flip, const std::vector<std::uint32_t>& repeated, void* panel) {
  const std::size_t k = call.input.k, whole = k / 4 * 4, stride = call.row_bytes();
  const std::uint8_t* x = call.row(row);
  call.kernels.transpose.words({x, stride, panel, lane_block * 4, lanes, k / 4, flip * 0x01010101u});
  auto* bytes = static_cast<std::uint8_t*>(panel);
  for (std::size_t column = whole; column < k + repeated.size(); ++column) {
    const std::size_t source = column < k ? column : repeated[column - k];
    std::uint8_t* to = bytes + column / 4 * lane_block * 4 + column % 4;
    for (std::size_t lane = 0; lane < lanes; ++lane)
      to[4 * lane] = static_cast<std::uint8_t>(x[lane * stride + source] ^ flip);
  }
}

void unload(const BatchCall& call, const LaneOutputs& outputs) {
  const std::size_t element = element_size(call.stage.output()), channels = call.channels();
  const std::size_t offset = outputs.row * channels + outputs.channel;
  void* to = static_cast<std::byte*>(call.out) + offset * element;
  const std::size_t from_stride = outputs.stride * element, to_stride = channels * element;
  if (element == 1)
    call.kernels.transpose.bytes({outputs.from, from_stride, to, to_stride, outputs.count, outputs.lanes, 0});
  else
    call.kernels.transpose.words({outputs.from, from_stride, to, to_stride, outputs.count, outputs.lanes, 0});
  if (call.stage.has_passes())
    call.stage.finish({call.out, call.residual, offset, outputs.lanes, outputs.count, channels},
                      call.kernels);
}

}  // namespace gristmill
