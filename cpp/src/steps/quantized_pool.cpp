#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gristmill/isa.h"
#include "kernel_table.h"
#include "pool_axes.h"
#include "quantized_checks.h"
#include "ranges.h"
#include "step_checks.h"

namespace gristmill {
namespace {

class QuantizedGlobalAverageStep final : public Step {
 public:
  QuantizedGlobalAverageStep(const QuantizedTensor& x, const QuantizedTensor& out)
      : kernels_(active_kernels().quantize), x_(read("x", x.tensor)), out_(write("out", out.tensor)) {
    const AxisSplit split = split_at(x.tensor.shape(), 1);
    planes_ = split.outer * split.extent;
    plane_ = split.inner;
    if (plane_ == 0) throw Error(ErrorKind::shape, "x", "has planes without elements");
    if (plane_ > kMostSummed)
      throw Error(ErrorKind::limit, "x",
                  "planes of " + std::to_string(plane_) + " elements could overflow int32");
    flip_ = sign_of(x.tensor.dtype());
    bias_ = -(x.map.zero_point + flip_) * static_cast<std::int32_t>(plane_);
    const std::uint8_t sign = sign_of(out.tensor.dtype());
    map_ = {x.map.scale / (out.map.scale * static_cast<float>(plane_)), 0, 0, out.map.zero_point + sign,
            sign};
    checked_map(x, "x");
    checked_map(out, "out");
    if (!std::isfinite(map_.scale)) throw Error(ErrorKind::limit, "out", "its scale is too small for x");
  }

  void run(const Frame& frame) const override {
    const auto* x = frame.at<const std::uint8_t>(x_);
    auto* out = frame.at<std::uint8_t>(out_);
    for_each_range(planes_, ceil_div(kRangeBytes, plane_), frame.threads,
                   [&](std::size_t begin, std::size_t end) { average(x, out, begin, end); });
  }

  std::string kernel() const override { return "quantized global average"; }

 private:
  static constexpr std::size_t kMostSummed = std::numeric_limits<std::int32_t>::max() / 255;

  void average(const std::uint8_t* x, std::uint8_t* out, std::size_t begin, std::size_t end) const {
    constexpr std::size_t kBatch = 256;
    std::int32_t sums[kBatch];
    for (; begin < end; begin += kBatch) {
      const std::size_t count = std::min(kBatch, end - begin);
      for (std::size_t p = 0; p < count; ++p) {
        const std::uint8_t* plane = x + (begin + p) * plane_;
        std::int32_t sum = bias_;
        for (std::size_t i = 0; i < plane_; ++i) sum += plane[i] ^ flip_;
        sums[p] = sum;
      }
      kernels_.requantize_run(sums, out + begin, count, map_, false);
    }
  }

  const QuantizeKernels& kernels_;
  std::size_t planes_, plane_;
  std::int32_t bias_;
  std::uint8_t flip_;
  Affine map_;
  Address x_, out_;
};

/// Reals are added up tap by tap, in the order of the elements of a window.
class QuantizedAverageStep final : public Step {
 public:
  QuantizedAverageStep(const PoolAxes& axes, bool count_padding, const QuantizedTensor& x,
                       const QuantizedTensor& out)
      : axes_(axes),
        count_padding_(count_padding),
        planes_(x.tensor.shape()[0] * x.tensor.shape()[1]),
        flip_(sign_of(checked_map(x, "x").type)),
        zero_x_(x.map.zero_point + flip_),
        scale_x_(x.map.scale),
        scale_out_(out.map.scale),
        zero_out_(static_cast<float>(out.map.zero_point)),
        low_(checked_map(out, "out").type == DType::s8 ? -128.0f : 0.0f),
        x_(read("x", x.tensor)),
        out_(write("out", out.tensor)) {}

  void run(const Frame& frame) const override {
    const auto* x = frame.at<const std::uint8_t>(x_);
    auto* out = frame.at<std::uint8_t>(out_);
    const std::size_t rows = axes_[0].out * axes_[1].out, width = axes_[2].out;
    const std::size_t taps = axes_[0].kernel * axes_[1].kernel * axes_[2].kernel;
    if (rows * width == 0) return;
    for_each_range(planes_ * rows, ceil_div(kRangeBytes, width * taps), frame.threads,
                   [&](std::size_t begin, std::size_t end) {
                     for (; begin < end; ++begin)
                       average_row(x, begin / rows, begin % rows, out + begin * width);
                   });
  }

  std::string kernel() const override { return "quantized average"; }

 private:
  static constexpr std::size_t kPiece = 256;  ///< outputs whose sums are kept at a time

  void average_row(const std::uint8_t* x, std::size_t plane, std::size_t row, std::uint8_t* out) const {
    const auto& [slices, rows, columns] = axes_;
    const std::size_t d = row / rows.out, h = row % rows.out;
    const auto [first_slice, last_slice] = slices.inside(d);
    const auto [first_row, last_row] = rows.inside(h);
    const std::size_t counted = slices.counted(d, count_padding_) * rows.counted(h, count_padding_);
    for (std::size_t from = 0; from < columns.out; from += kPiece) {
      const std::size_t to = std::min(columns.out, from + kPiece);
      float sums[kPiece] = {};
      for (std::size_t s = first_slice; s < last_slice; ++s)
        for (std::size_t r = first_row; r < last_row; ++r) {
          const std::size_t slice =
              plane * slices.in + d * slices.stride + s * slices.dilation - slices.before;
          const std::size_t source = slice * rows.in + h * rows.stride + r * rows.dilation - rows.before;
          add_taps(x + source * columns.in, from, to, sums);
        }
      for (std::size_t o = from; o < to; ++o) {
        const float mean = sums[o - from] / static_cast<float>(counted * columns.counted(o, count_padding_));
        out[o] = nearest_byte(mean / scale_out_ + zero_out_, low_, low_ + 255.0f);
      }
    }
  }

  /// What one row of x adds to the outputs from..to of a row.
  void add_taps(const std::uint8_t* x, std::size_t from, std::size_t to, float* sums) const {
    const PoolAxis& axis = axes_[2];
    for (std::size_t tap = 0; tap < axis.kernel; ++tap) {
      const std::size_t at = tap * axis.dilation, end = axis.in + axis.before;
      const std::size_t first = at >= axis.before ? 0 : ceil_div(axis.before - at, axis.stride);
      const std::size_t last = at >= end ? 0 : ceil_div(end - at, axis.stride);
      for (std::size_t o = std::max(first, from); o < std::min(last, to); ++o) {
        const std::int32_t q = (x[o * axis.stride + at - axis.before] ^ flip_) - zero_x_;
        sums[o - from] += static_cast<float>(q) * scale_x_;
      }
    }
  }

  PoolAxes axes_;
  bool count_padding_;
  std::size_t planes_;
  std::uint8_t flip_;
  std::int32_t zero_x_;
  float scale_x_, scale_out_, zero_out_, low_;
  Address x_, out_;
};

}  // namespace

StepPtr quantized_global_average_step(const QuantizedTensor& x, const QuantizedTensor& out) {
  const auto& shape = x.tensor.shape();
  if (shape.size() < 2) throw Error(ErrorKind::shape, "x", "expected (batch, channels, spatial...)");
  std::vector<bool> reduced(shape.size(), true);
  reduced[0] = reduced[1] = false;
  require_reduced_shape("out", out.tensor, shape, reduced);
  element_count(shape, "x");
  return std::make_unique<const QuantizedGlobalAverageStep>(x, out);
}

StepPtr quantized_average_step(const PoolWindow& window, const QuantizedTensor& x,
                               const QuantizedTensor& out) {
  const PoolAxes axes = pool_axes(window, x.tensor, out.tensor);
  element_count(x.tensor.shape(), "x");
  element_count(out.tensor.shape(), "out");
  return std::make_unique<const QuantizedAverageStep>(axes, window.count_include_pad, x, out);
}

}  // namespace gristmill
