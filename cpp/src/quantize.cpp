#include "gristmill/quantize.h"

#include <string>

#include "affine_table.h"
#include "gristmill/cpu.h"
#include "gristmill/error.h"
#include "gristmill/isa.h"
#include "gristmill/parallel.h"
#include "kernel_table.h"
#include "loop_nest.h"

namespace gristmill {
namespace {

/// True if the output is stored around the caches: it is larger than what one program may hope to hold of the
/// last one, and its contiguous runs are long, for what streaming stores fill of a cache line only in part is
/// slow to merge.
bool prefers_streaming(std::size_t bytes, std::size_t run) {
  constexpr std::size_t kLongRun = 512;
  static const std::size_t share = [] {
    std::size_t largest = std::size_t{32} << 20;
    const std::vector<CacheInfo> caches = cpu_caches();
    return caches.empty() ? largest : std::min(largest, caches.back().bytes);
  }();
  return bytes > share && run >= kLongRun;
}

std::size_t channel_count(const std::vector<std::size_t>& shape, std::optional<std::size_t> axis) {
  if (!axis) return 1;
  if (*axis >= shape.size())
    throw Error(ErrorKind::shape, "axis",
                "is " + std::to_string(*axis) + " but the array has rank " + std::to_string(shape.size()));
  return shape[*axis];
}

/// A conversion: its two kernels and its maps.
template <class In, class Out>
struct Conversion {
  void (*run)(const In*, Out*, std::size_t, const Affine&, bool);
  void (*lanes)(const In*, Out*, std::size_t, const AffineLanes&, bool);
  AffineTable table;
  void (*finish_streams)();
  bool stream = false;

  /// Converts elements [first, first + count) of a tail; `channel` is that of a tail without channels.
  void convert(const In* in, Out* out, const Tail& tail, std::size_t channel, std::size_t first,
               std::size_t count) const {
    if (table.expanded()) return lanes(in, out, count, table.lanes(first), stream);
    for_each_run(tail, first, count, [&](std::size_t tail_channel, std::size_t start, std::size_t length) {
      const Affine map = table.channel(tail.channels == 1 ? channel : tail_channel);
      run(in + (start - first), out + (start - first), length, map, stream);
    });
  }
};

template <class In, class Out>
void convert_direct(const LoopNest& nest, const Conversion<In, Out>& conversion, int threads) {
  const std::size_t tasks = (nest.total - 1) / kTaskElements + 1;
  parallel_for(tasks, threads, [&](std::size_t task) {
    const std::size_t begin = task * kTaskElements, end = std::min(nest.total, begin + kTaskElements);
    for_each_segment(nest, begin, end, [&](const NestPosition& at, std::size_t first, std::size_t count) {
      conversion.convert(reinterpret_cast<const In*>(at.in) + first, reinterpret_cast<Out*>(at.out) + first,
                         nest.tail, at.channel, first, count);
    });
    if (conversion.stream) conversion.finish_streams();
  });
}

template <class In, class Out>
void convert_staged(const LoopNest& nest, const Conversion<In, Out>& conversion, int threads) {
  const Boxes boxes(nest);
  const std::size_t together = kTaskElements / kBoxElements;
  const std::size_t tasks = (boxes.count() - 1) / together + 1;
  parallel_for(tasks, threads, [&](std::size_t task) {
    std::vector<In> in(std::min(nest.total, kBoxElements));
    std::vector<Out> out(in.size());
    for (std::size_t index = task * together; index < std::min(boxes.count(), (task + 1) * together);
         ++index) {
      const Box box = boxes.box(index);
      gather_box(box, reinterpret_cast<std::byte*>(in.data()), sizeof(In));
      for (std::size_t c = 0; c < box.loops[0].extent; ++c)
        conversion.run(in.data() + c * box.rest, out.data() + c * box.rest, box.rest,
                       conversion.table.channel(box.start.channel + c), false);
      scatter_box(box, reinterpret_cast<const std::byte*>(out.data()), sizeof(Out));
    }
  });
}

template <class In, class Out>
void convert(const ArrayView<const In>& in, const ArrayView<Out>& out, std::optional<std::size_t> axis,
             Conversion<In, Out>& conversion, int threads) {
  if (in.shape != out.shape) throw Error(ErrorKind::shape, "out", "must have the shape of the input");
  const LoopNest nest =
      normalize(in.shape, {reinterpret_cast<const std::byte*>(in.data), &in.strides, sizeof(In)},
                {reinterpret_cast<const std::byte*>(out.data), &out.strides, sizeof(Out)}, axis);
  if (nest.total == 0) return;
  if (!nest.direct) return convert_staged(nest, conversion, threads);
  const Tail& tail = nest.tail;
  const bool interleaved = tail.channels > 1 && tail.inner < kShortRun;
  if (interleaved) conversion.table.expand(tail.inner);
  conversion.stream = prefers_streaming(nest.total * sizeof(Out),
                                        tail.channels > 1 && !interleaved ? tail.inner : tail.count);
  convert_direct(nest, conversion, threads);
}

}  // namespace

void quantize(const ArrayView<const float>& x, const QuantParams& params, QuantType type,
              const ArrayView<std::uint8_t>& q, int threads) {
  const QuantizeKernels& kernels = active_kernels().quantize;
  Conversion<float, std::uint8_t> conversion{kernels.quantize_run,
                                             kernels.quantize_lanes,
                                             {params, type, channel_count(x.shape, params.axis)},
                                             kernels.finish_streams};
  conversion.table.prepare_division();
  convert(x, q, params.axis, conversion, threads);
}

void dequantize(const ArrayView<const std::uint8_t>& q, const QuantParams& params, QuantType type,
                const ArrayView<float>& x, int threads) {
  const QuantizeKernels& kernels = active_kernels().quantize;
  Conversion<std::uint8_t, float> conversion{kernels.dequantize_run,
                                             kernels.dequantize_lanes,
                                             {params, type, channel_count(q.shape, params.axis)},
                                             kernels.finish_streams};
  convert(q, x, params.axis, conversion, threads);
}

void requantize(const ArrayView<const std::int32_t>& acc, const QuantParams& params, QuantType type,
                const ArrayView<std::uint8_t>& q, int threads) {
  const QuantizeKernels& kernels = active_kernels().quantize;
  Conversion<std::int32_t, std::uint8_t> conversion{kernels.requantize_run,
                                                    kernels.requantize_lanes,
                                                    {params, type, channel_count(acc.shape, params.axis)},
                                                    kernels.finish_streams};
  convert(acc, q, params.axis, conversion, threads);
}

void rescale(const ArrayView<const std::int32_t>& acc, const QuantParams& params, const ArrayView<float>& y,
             int threads) {
  for (std::int32_t zero_point : params.zero_point)
    if (zero_point != 0) throw Error(ErrorKind::argument, "zero_point", "must be 0 for float32 results");
  const QuantizeKernels& kernels = active_kernels().quantize;
  Conversion<std::int32_t, float> conversion{kernels.rescale_run,
                                             kernels.rescale_lanes,
                                             {params, QuantType::s8, channel_count(acc.shape, params.axis)},
                                             kernels.finish_streams};
  convert(acc, y, params.axis, conversion, threads);
}

}  // namespace gristmill
