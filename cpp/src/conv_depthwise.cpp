#include <algorithm>

#include "checked_size.h"
#include "conv_plan.h"
#include "depthwise_weights.h"

namespace gristmill {
namespace {

/// Input planes of a section's task: enough work to be worth handing out.
constexpr std::size_t kTaskElements = 1 << 14;

/// What every plane of a call has in common.
struct DepthwiseCall {
  const ConvCall& conv;
  const DepthwiseWeights& weights;
  ActivationForm form;
  std::size_t multiplier;
  bool copied;  // planes are staged or flipped
};

/// The source of an input plane's outputs: staged or flipped into the worker's scratch, or the plane itself.
const std::byte* source_plane(const DepthwiseCall& call, WorkerScratch& scratch, std::size_t plane) {
  const ConvCall& conv = call.conv;
  const PlaneLayout& layout = conv.layout;
  const std::size_t start = plane * conv.in_plane();
  const auto* input = static_cast<const std::byte*>(conv.input.data);
  if (!call.copied) return input + start * conv.element();
  const std::size_t elements = layout.plane_elements() + PlaneLayout::kSlack;
  void* staged = scratch.plane.reserve(elements * conv.element());
  if (conv.weights.is_f32()) {
    const auto* x = static_cast<const float*>(conv.input.data);
    auto* out = static_cast<float*>(staged);
    layout.stage({x + start, x + conv.input_elements()}, {out, out + elements});
    return static_cast<const std::byte*>(staged);
  }
  const auto* x = static_cast<const std::uint8_t*>(conv.input.data);
  auto* out = static_cast<std::uint8_t*>(staged);
  if (layout.staged())
    layout.stage({x + start, x + conv.input_elements()}, static_cast<std::uint8_t>(conv.input.zero_point),
                 call.form.flip, {out, out + elements});
  else
    std::transform(x + start, x + start + conv.in_plane(), out, [flip = call.form.flip](std::uint8_t byte) {
      return static_cast<std::uint8_t>(byte ^ flip);
    });
  return static_cast<const std::byte*>(staged);
}

void convolve_plane(const DepthwiseCall& call, WorkerScratch& scratch, std::size_t plane) {
  const ConvCall& conv = call.conv;
  const PlaneLayout& layout = conv.layout;
  const std::byte* source = source_plane(call, scratch, plane);
  const std::size_t behind =
      call.copied ? layout.plane_elements() + PlaneLayout::kSlack
                  : conv.input_elements() - plane * conv.in_plane() + conv.input.readable_slack;
  const std::size_t image = plane / conv.input.channels, channel = plane % conv.input.channels;
  for (std::size_t i = 0; i < call.multiplier; ++i) {
    const std::size_t m = channel * call.multiplier + i;
    const std::size_t offset = (image * conv.weights.out_channels() + m) * layout.positions();
    const EpilogueF32 f32 = conv.weights.is_f32() ? conv.stage.kernel_f32(m) : EpilogueF32{};
    const EpilogueS8 s8 =
        conv.weights.is_f32() ? EpilogueS8{} : conv.stage.kernel_s8(conv.buffers.folded_bias, m);
    DepthwiseJob job{};
    job.source = source;
    job.source_row_step = layout.row_step();
    job.tap_offset = layout.tap_offset().data();
    job.weights = call.weights.at(m);
    job.taps = layout.tap_offset().size();
    job.out_rows = layout.out_rows();
    job.out_columns = layout.out_columns();
    job.epilogue = conv.weights.is_f32() ? static_cast<const void*>(&f32) : &s8;
    job.out = static_cast<std::byte*>(conv.out) + offset * element_size(conv.stage.output());
    job.readable_slack = behind - layout.reach();
    (conv.weights.is_f32() ? conv.kernels.depthwise.f32 : conv.kernels.depthwise.s8)(job);
    if (conv.stage.has_passes())
      conv.stage.finish({conv.out, conv.residual, offset, 1, layout.positions(), 0}, conv.kernels);
  }
}

}  // namespace

DepthwiseWeights::DepthwiseWeights(const WeightView<std::int8_t>& weights, const KernelTable& kernels)
    : channel_bytes_(kernels.depthwise.packed_s8_bytes(weights.k)), sums_(weights) {
  const std::size_t channels = weights.groups * weights.rows;
  storage_.reserve(checked_product({channels, channel_bytes_}, "weights"));
  for (std::size_t m = 0; m < channels; ++m)
    kernels.depthwise.pack_s8(&weights.at(m, 0), weights.k, storage_.data<std::byte>() + m * channel_bytes_);
}

DepthwiseWeights::DepthwiseWeights(const WeightView<float>& weights, const KernelTable&)
    : channel_bytes_(weights.k * sizeof(float)) {
  const std::size_t elements = checked_product({weights.groups, weights.rows, weights.k}, "weights");
  storage_.reserve(checked_product({elements, sizeof(float)}, "weights"));
  std::copy_n(weights.data, elements, storage_.data<float>());
}

void conv2d_depthwise(const ConvCall& conv) {
  const ActivationForm form =
      activation_form(conv.input.type, conv.input.zero_point, conv.kernels.depthwise.flip);
  const DepthwiseWeights& weights = conv.weights.depthwise();
  const DepthwiseCall call{conv, weights, form, conv.weights.out_channels() / conv.input.channels,
                           conv.layout.staged() || form.flip != 0};
  if (!conv.weights.is_f32()) {
    conv.buffers.folded_bias.resize(conv.weights.out_channels());
    conv.stage.fold_bias(weights.sums(), form.zero_point, conv.buffers.folded_bias);
  }
  const std::size_t planes = conv.input.batch * conv.input.channels;
  const std::size_t work = conv.layout.positions() * call.multiplier * conv.weights.kernel().taps();
  const std::size_t step = std::clamp<std::size_t>(kTaskElements / std::max<std::size_t>(work, 1), 1, planes);
  for_each_task(conv.buffers, ceil_div(planes, step), conv.threads,
                [&](WorkerScratch& scratch, std::size_t task) {
                  const std::size_t end = std::min(planes, (task + 1) * step);
                  for (std::size_t plane = task * step; plane < end; ++plane)
                    convolve_plane(call, scratch, plane);
                });
}

}  // namespace gristmill
