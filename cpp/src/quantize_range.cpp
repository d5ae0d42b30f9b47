#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "gristmill/error.h"
#include "gristmill/isa.h"
#include "gristmill/parallel.h"
#include "gristmill/quantize.h"
#include "kernel_table.h"
#include "loop_nest.h"

namespace gristmill {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Running extremes of every channel, or of every lane while channels are interleaved.
struct Ranges {
  std::vector<float> low, high;
  explicit Ranges(std::size_t count) : low(count, kInfinity), high(count, -kInfinity) {}

  /// Takes in another range of the same channel; one that has seen no element is left out.
  void merge(std::size_t index, float other_low, float other_high) {
    if (other_low > other_high) return;
    if (other_low < low[index] || std::isnan(other_low)) low[index] = other_low;
    if (other_high > high[index] || std::isnan(other_high)) high[index] = other_high;
  }
};

/// How a reduction is cut: each task reduces a share of the nest to ranges of its own, which are then merged.
/// Extremes are exact, so the cut does not show in the result.
struct Reduction {
  const LoopNest& nest;
  const QuantizeKernels& kernels;
  std::size_t channels;
  bool interleaved;  // the tail has short runs: reduce to lanes, some for each channel

  std::size_t slots() const {
    if (!interleaved) return channels;
    constexpr std::size_t kEnough = 1024;
    const std::size_t period = nest.tail.channels * nest.tail.inner;
    return period * ((kEnough - 1) / period + 1);
  }

  std::size_t channel_of(std::size_t slot) const {
    return interleaved ? slot / nest.tail.inner % nest.tail.channels : slot;
  }

  void reduce_segment(const NestPosition& at, std::size_t first, std::size_t count, Ranges& ranges) const {
    const float* x = reinterpret_cast<const float*>(at.in) + first;
    if (!interleaved) {
      for_each_run(nest.tail, first, count,
                   [&](std::size_t tail_channel, std::size_t start, std::size_t length) {
                     const std::size_t c = nest.tail.channels == 1 ? at.channel : tail_channel;
                     kernels.min_max_run(x + (start - first), length, &ranges.low[c], &ranges.high[c]);
                   });
      return;
    }
    while (count > 0) {
      const std::size_t lane = first % slots(), length = std::min(slots() - lane, count);
      kernels.min_max_lanes(x, length, &ranges.low[lane], &ranges.high[lane]);
      x += length, first += length, count -= length;
    }
  }

  void reduce_box(const Box& box, std::vector<float>& dense, Ranges& ranges) const {
    gather_box(box, reinterpret_cast<std::byte*>(dense.data()), sizeof(float));
    for (std::size_t c = 0; c < box.loops[0].extent; ++c)
      kernels.min_max_run(dense.data() + c * box.rest, box.rest, &ranges.low[box.start.channel + c],
                          &ranges.high[box.start.channel + c]);
  }

  void reduce_share(std::size_t share, std::size_t shares, Ranges& ranges) const {
    if (nest.direct) {
      const std::size_t length = (nest.total - 1) / shares + 1, begin = std::min(nest.total, share * length);
      for_each_segment(nest, begin, std::min(nest.total, begin + length),
                       [&](const NestPosition& at, std::size_t first, std::size_t count) {
                         reduce_segment(at, first, count, ranges);
                       });
      return;
    }
    const Boxes boxes(nest);
    std::vector<float> dense(std::min(nest.total, kBoxElements));
    for (std::size_t index = share; index < boxes.count(); index += shares)
      reduce_box(boxes.box(index), dense, ranges);
  }
};

/// One bit pattern for each value: no sign on zeros, one NaN.
float canonical(float value) {
  return std::isnan(value) ? std::numeric_limits<float>::quiet_NaN() : value + 0.0f;
}

}  // namespace

void min_max(const ArrayView<const float>& x, std::optional<std::size_t> axis, std::span<float> low,
             std::span<float> high, int threads) {
  const NestOperand operand{reinterpret_cast<const std::byte*>(x.data), &x.strides, sizeof(float)};
  const LoopNest nest = normalize(x.shape, operand, operand, axis);
  if (low.size() == 0) return;
  if (nest.total == 0)
    throw Error(ErrorKind::argument, "x", "is empty: it has no least and greatest element");
  const Reduction reduction{nest, active_kernels().quantize, low.size(),
                            nest.direct && nest.tail.channels > 1 && nest.tail.inner < kShortRun};
  const std::size_t most = static_cast<std::size_t>(threads > 0 ? threads : default_threads());
  const std::size_t shares =
      std::clamp<std::size_t>(nest.total / kTaskElements, 1, std::min<std::size_t>(most, kMaxThreads));
  std::vector<Ranges> parts(shares, Ranges(reduction.slots()));
  parallel_for(shares, threads,
               [&](std::size_t share) { reduction.reduce_share(share, shares, parts[share]); });

  Ranges all(low.size());
  for (const Ranges& part : parts)
    for (std::size_t i = 0; i < reduction.slots(); ++i)
      all.merge(reduction.channel_of(i), part.low[i], part.high[i]);
  std::ranges::transform(all.low, low.begin(), canonical);
  std::ranges::transform(all.high, high.begin(), canonical);
}

ScaleAndZeroPoint choose_qparams(float low, float high, QuantType type, bool symmetric) {
  if (!std::isfinite(low) || !std::isfinite(high))
    throw Error(
        ErrorKind::argument, "range",
        "is [" + std::to_string(low) + ", " + std::to_string(high) +
            "]; remove NaN and infinite values, or replace them (numpy.nan_to_num), before choosing a scale");
  if (low > high)
    throw Error(
        ErrorKind::argument, "range",
        "is [" + std::to_string(low) + ", " + std::to_string(high) + "]: the minimum exceeds the maximum");
  const double least = std::min(0.0, static_cast<double>(low)),
               greatest = std::max(0.0, static_cast<double>(high));
  const std::int32_t middle = symmetric && type == QuantType::u8 ? 128 : 0;
  if (least == greatest) return {1.0f, middle};
  const double extent = symmetric ? std::max(-least, greatest) / 127 : (greatest - least) / 255;
  const float scale = std::max(static_cast<float>(extent), std::numeric_limits<float>::min());
  if (symmetric) return {scale, middle};
  const double zero_point = std::nearbyint(quant_min(type) - least / scale);
  return {scale, static_cast<std::int32_t>(std::clamp<double>(zero_point, quant_min(type), quant_max(type)))};
}

}  // namespace gristmill
