#include "depthwise_kernels.h"
#include "epilogue_scalar.h"

namespace gristmill {
namespace {

/// finish(sum over taps, output index) for every output pixel.
template <class Sum, class Source, class Weight, class Finish>
void convolve(const DepthwiseJob& job, Finish finish) {
  const auto* weights = static_cast<const Weight*>(job.weights);
  for (std::size_t y = 0; y < job.out_rows; ++y) {
    const Source* row = static_cast<const Source*>(job.source) + y * job.source_row_step;
    for (std::size_t x = 0; x < job.out_columns; ++x) {
      Sum sum = 0;
      for (std::size_t t = 0; t < job.taps; ++t) sum += Sum{row[x + job.tap_offset[t]]} * Sum{weights[t]};
      finish(sum, y * job.out_columns + x);
    }
  }
}

std::size_t packed_s8_bytes(std::size_t taps) { return (taps + 7) / 8 * 8; }

void pack_s8(const std::int8_t* weights, std::size_t taps, void* packed) {
  for (std::size_t t = 0; t < taps; ++t) static_cast<std::int8_t*>(packed)[t] = weights[t];
}

void depthwise_s8(const DepthwiseJob& job) {
  const auto& epilogue = *static_cast<const EpilogueS8*>(job.epilogue);
  convolve<std::int32_t, std::uint8_t, std::int8_t>(
      job, [&](std::int32_t sum, std::size_t i) { store_s8(epilogue, 0, sum, job.out, i); });
}

void depthwise_f32(const DepthwiseJob& job) {
  const auto& epilogue = *static_cast<const EpilogueF32*>(job.epilogue);
  convolve<float, float, float>(job, [&](float sum, std::size_t i) {
    float value = sum + *epilogue.bias;
    value = value < epilogue.low ? epilogue.low : value;
    static_cast<float*>(job.out)[i] = value > epilogue.high ? epilogue.high : value;
  });
}

}  // namespace

void install_depthwise_scalar(DepthwiseKernels& slots) {
  slots.flip = 0;
  slots.packed_s8_bytes = packed_s8_bytes;
  slots.pack_s8 = pack_s8;
  slots.s8 = depthwise_s8;
  slots.f32 = depthwise_f32;
  slots.gather_s8 = {};
  slots.gather_f32 = {};
  slots.strips_f32 = nullptr;
  slots.strips_s8 = {};
}

}  // namespace gristmill
