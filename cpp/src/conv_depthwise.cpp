#include <algorithm>
#include <cstddef>

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
  const GatherKernel& gather;
  const DepthwisePlan* plan;  // null where planes are staged
  ActivationForm form;
  std::size_t multiplier;

  bool copied() const { return conv.layout.staged() || form.flip != 0; }
};

DepthwiseGeometry geometry_of(const ConvCall& conv) {
  const auto size = [](std::int64_t value) { return static_cast<std::size_t>(value); };
  const ConvAttributes& a = conv.weights.attributes();
  const ConvKernel kernel = conv.weights.kernel();
  return {conv.input.height,  conv.input.width,   conv.layout.out_rows(), conv.layout.out_columns(),
          kernel.height,      kernel.width,       size(a.stride_h),       size(a.stride_w),
          size(a.dilation_h), size(a.dilation_w), size(a.pad_top),        size(a.pad_left)};
}

/// Gathers `count` planes from `source`, which are those from `plane` on, all of one image.
void gather_run(const DepthwiseCall& call, const void* source, std::size_t plane, std::size_t count) {
  const ConvCall& conv = call.conv;
  const ConvKernel kernel = conv.weights.kernel();
  const bool is_f32 = conv.weights.is_f32();
  const std::size_t image = plane / conv.input.channels;
  const std::size_t m = plane % conv.input.channels * call.multiplier;
  const std::size_t offset = (image * conv.weights.out_channels() + m) * conv.layout.positions();
  const EpilogueF32 f32 = is_f32 ? conv.stage.kernel_f32(m) : EpilogueF32{};
  const EpilogueS8 s8 = is_f32 ? EpilogueS8{} : conv.stage.kernel_s8(conv.buffers.folded_bias, m);
  DepthwiseGatherJob job{};
  job.source = source;
  job.in_plane = conv.in_plane();
  job.planes = count;
  job.multiplier = call.multiplier;
  job.segments = call.plan->segments().data();
  job.segment_count = call.plan->segments().size();
  job.indices = call.plan->indices();
  job.shared = call.plan->shared();
  const std::size_t row_vectors = ceil_div(kernel.width, call.gather.taps);
  job.groups = call.gather.taps == 4 ? kernel.height * row_vectors : kernel.height;
  job.group_vectors = call.gather.taps == 4 ? 1 : row_vectors;
  job.weights = call.weights.gathered(m);
  job.epilogue = is_f32 ? static_cast<const void*>(&f32) : &s8;
  job.out = static_cast<std::byte*>(conv.out) + offset * element_size(conv.stage.output());
  job.positions = conv.layout.positions();
  job.padding = static_cast<std::uint8_t>(conv.input.zero_point);
  job.flip = call.form.flip;
  call.gather.run(job);
  if (conv.stage.has_passes())
    conv.stage.finish({conv.out, conv.residual, offset, 1, count * call.multiplier * job.positions, 0},
                      conv.kernels);
}

/// Gathers the planes from `first` to `end`. Where planes are smaller than a window, the last of the input
/// are copied, for their windows would reach beyond it.
void gather_planes(const DepthwiseCall& call, WorkerScratch& scratch, std::size_t first, std::size_t end) {
  const ConvCall& conv = call.conv;
  const std::size_t plane_bytes = conv.in_plane() * conv.element();
  const std::size_t slack = std::min(conv.input.readable_slack, call.plan->overrun());
  const std::size_t planes = conv.input.batch * conv.input.channels;
  const std::size_t copies = ceil_div(call.plan->overrun() - slack, conv.in_plane());
  const std::size_t in_place = planes - std::min(planes, copies);
  const auto* input = static_cast<const std::byte*>(conv.input.data);
  for (std::size_t plane = first; plane < end;) {
    std::size_t stop = std::min(end, (plane / conv.input.channels + 1) * conv.input.channels);
    const std::byte* source = input + plane * plane_bytes;
    if (plane < in_place) {
      stop = std::min(stop, in_place);
    } else {
      const std::size_t bytes = (stop - plane) * plane_bytes;
      auto* copy =
          static_cast<std::byte*>(scratch.plane.reserve(bytes + call.plan->overrun() * conv.element()));
      source = std::copy_n(source, bytes, copy) - bytes;
    }
    gather_run(call, source, plane, stop - plane);
    plane = stop;
  }
}

/// The source of an input plane's outputs: staged or flipped into the worker's scratch, or the plane itself.
const std::byte* source_plane(const DepthwiseCall& call, WorkerScratch& scratch, std::size_t plane) {
  const ConvCall& conv = call.conv;
  const PlaneLayout& layout = conv.layout;
  const std::size_t start = plane * conv.in_plane();
  const auto* input = static_cast<const std::byte*>(conv.input.data);
  if (!call.copied()) return input + start * conv.element();
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
      call.copied() ? layout.plane_elements() + PlaneLayout::kSlack
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
    job.weights = call.weights.staged(m);
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

/// Whether planes are to be convolved in strips.
bool takes_strips(const ConvCall& conv, std::size_t multiplier) {
  const DepthwiseGeometry g = geometry_of(conv);
  const std::size_t stride = g.stride_h, rows = ceil_div(g.height, stride),
                    columns = ceil_div(g.width, stride);
  const DepthwiseGeometry striped{g.height, g.width, rows, columns, 3, 3, stride, stride, 1, 1, 1, 1};
  if (multiplier != 1 || stride > 2 || g != striped) return false;
  const DepthwiseKernels& kernels = conv.kernels.depthwise;
  if (conv.weights.is_f32()) return kernels.strips_f32 != nullptr;
  return conv.input.type == DType::u8 && kernels.strips_s8.run != nullptr &&
         kernels.strips_s8.pays(rows, columns, stride);
}

/// Convolves the planes from `plane` to `end` in strips.
void convolve_strips(const DepthwiseCall& call, std::size_t plane, std::size_t end) {
  const ConvCall& conv = call.conv;
  const bool is_f32 = conv.weights.is_f32();
  const std::size_t channels = conv.input.channels, positions = conv.layout.positions();
  DepthwiseStripsJob job{};
  job.rows = conv.input.height;
  job.columns = conv.input.width;
  job.stride = static_cast<std::size_t>(conv.weights.attributes().stride_h);
  job.padding = static_cast<std::uint8_t>(conv.input.zero_point);
  for (; plane < end; plane += job.planes) {
    const std::size_t m = plane % channels, offset = plane * positions;
    const std::size_t start = plane * conv.in_plane();
    job.planes = std::min(end - plane, channels - m);
    const EpilogueF32 f32 = is_f32 ? conv.stage.kernel_f32(m) : EpilogueF32{};
    const EpilogueS8 s8 = is_f32 ? EpilogueS8{} : conv.stage.kernel_s8(conv.buffers.folded_bias, m);
    job.source = static_cast<const std::byte*>(conv.input.data) + start * conv.element();
    job.weights = call.weights.strips(m);
    job.epilogue = is_f32 ? static_cast<const void*>(&f32) : &s8;
    job.out = static_cast<std::byte*>(conv.out) + offset * element_size(conv.stage.output());
    job.readable_slack =
        conv.input_elements() - start - job.planes * conv.in_plane() + conv.input.readable_slack;
    (is_f32 ? conv.kernels.depthwise.strips_f32 : conv.kernels.depthwise.strips_s8.run)(job);
    if (conv.stage.has_passes())
      conv.stage.finish({conv.out, conv.residual, offset, 1, job.planes * positions, 0}, conv.kernels);
  }
}

}  // namespace

void conv2d_depthwise(const ConvCall& conv) {
  const DepthwiseWeights& weights = conv.weights.depthwise();
  const bool is_f32 = conv.weights.is_f32();
  const GatherKernel& gather = is_f32 ? conv.kernels.depthwise.gather_f32 : conv.kernels.depthwise.gather_s8;
  const std::size_t multiplier = conv.weights.out_channels() / conv.input.channels;
  const bool strips = takes_strips(conv, multiplier);
  const auto plan = strips ? nullptr : weights.plan(geometry_of(conv), gather);
  const std::uint8_t flip = plan ? std::uint8_t{0} : conv.kernels.depthwise.flip;
  const DepthwiseCall call{
      conv,      weights, gather, plan.get(), activation_form(conv.input.type, conv.input.zero_point, flip),
      multiplier};
  if (!is_f32) {
    conv.buffers.folded_bias.resize(conv.weights.out_channels());
    conv.stage.fold_bias(weights.sums(), call.form.zero_point, conv.buffers.folded_bias);
  }
  const std::size_t planes = conv.input.batch * conv.input.channels;
  const std::size_t work = conv.layout.positions() * call.multiplier * conv.weights.kernel().taps();
  const std::size_t step = std::clamp<std::size_t>(kTaskElements / std::max<std::size_t>(work, 1), 1, planes);
  for_each_task(conv.buffers, ceil_div(planes, step), conv.threads,
                [&](WorkerScratch& scratch, std::size_t task) {
                  const std::size_t first = task * step, end = std::min(planes, first + step);
                  if (strips) return convolve_strips(call, first, end);
                  if (plan) return gather_planes(call, scratch, first, end);
                  for (std::size_t plane = first; plane < end; ++plane) convolve_plane(call, scratch, plane);
                });
}

}  // namespace gristmill
