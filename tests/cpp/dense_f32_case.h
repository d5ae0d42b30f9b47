#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "dense_kernels.h"
#include "guarded_buffer.h"
#include "harness.h"

/// Products of dense f32 kernels.
namespace harness {

using gristmill::ChannelAxis;
using gristmill::DenseJob;
using gristmill::DenseKernel;
using gristmill::DenseKernels;
using gristmill::EpilogueF32;

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kUntouched = 12345.0f;

struct Shape {
  std::size_t rows, lanes, k;
  ChannelAxis axis = ChannelAxis::rows;
  std::size_t gap = 0;  // elements between the rows of the output
  Edge edge = Edge::high;
  bool in_place = false;  // the lane operand is a matrix
};

inline std::size_t rounded_up(std::size_t n, std::size_t block) { return (n + block - 1) / block * block; }

inline std::string describe(const Shape& s) {
  return std::to_string(s.rows) + "x" + std::to_string(s.lanes) + " k=" + std::to_string(s.k) +
         (s.axis == ChannelAxis::rows ? " channels in rows" : " channels in lanes");
}

inline const DenseKernel& kernel_of(const DenseKernels& kernels, ChannelAxis axis) {
  return axis == ChannelAxis::rows ? kernels.f32_channels_in_rows : kernels.f32_channels_in_lanes;
}

/// One product A[rows][k] * B[k][lanes] in plain storage, its packed operands, and its guarded output.
class Problem {
 public:
  Problem(const DenseKernels& kernels, const Shape& shape, std::uint64_t seed)
      : kernel_(kernel_of(kernels, shape.axis)),
        shape_(shape),
        a(shape.rows * shape.k),
        b(shape.k * shape.lanes),
        bias(channels(), shape.edge),
        broadcast_(rounded_up(shape.rows, kernel_.row_block) * shape.k, shape.edge),
        lane_(lane_stride() * shape.k, shape.edge),
        copies_(shape.in_place ? kernel_.copy_bytes / sizeof(float) : 0, shape.edge),
        out(shape.rows == 0 ? 0 : (shape.rows - 1) * stride() + shape.lanes, shape.edge) {
    Random random(seed);
    const auto fill = [&](auto&& values) {
      for (float& value : values) value = static_cast<float>(random.unit() * 2 - 1);
    };
    fill(a);
    fill(b);
    fill(bias.span());
  }

  std::size_t channels() const { return shape_.axis == ChannelAxis::rows ? shape_.rows : shape_.lanes; }
  std::size_t stride() const { return shape_.lanes + shape_.gap; }
  /// Floats from one row of a matrix to the next; of panels, what all take for each k.
  std::size_t lane_stride() const {
    return rounded_up(shape_.lanes, shape_.in_place ? std::size_t{16} : kernel_.lane_block);
  }

  /// Runs rows [row, row + rows) and lanes [lane, lane + lanes), which start at block boundaries.
  void run_part(std::size_t row, std::size_t rows, std::size_t lane, std::size_t lanes) {
    const bool in_rows = shape_.axis == ChannelAxis::rows;
    const std::size_t output = row * stride() + lane;
    const EpilogueF32 epilogue{bias.data() + (in_rows ? row : lane),
                               low,
                               high,
                               residual.size() == 0 ? nullptr : residual.data() + output,
                               sum_low,
                               sum_high};
    const DenseJob job{broadcast_.data() + row * shape_.k,
                       lane_.data() + lane * (shape_.in_place ? 1 : shape_.k),
                       shape_.k,
                       rows,
                       lanes,
                       &epilogue,
                       out.data() + output,
                       stride(),
                       {},
                       shape_.in_place ? lane_stride() : 0,
                       0,
                       0,
                       copies_.data()};
    kernel_.multiply(job);
  }

  void run() {
    pack();
    std::ranges::fill(out.span(), kUntouched);
    run_part(0, shape_.rows, 0, shape_.lanes);
  }

  /// Every part of `row_step` rows and `lane_step` lanes in a call of its own.
  void run_in_parts(std::size_t row_step, std::size_t lane_step) {
    pack();
    std::ranges::fill(out.span(), kUntouched);
    for (std::size_t row = 0; row < shape_.rows; row += row_step) {
      for (std::size_t lane = 0; lane < shape_.lanes; lane += lane_step) {
        run_part(row, std::min(row_step, shape_.rows - row), lane, std::min(lane_step, shape_.lanes - lane));
      }
    }
  }

  /// Every `depth` of K in a call of its own.
  void run_in_slices(std::size_t depth) {
    pack();
    std::ranges::fill(out.span(), kUntouched);
    const std::size_t width = shape_.in_place ? lane_stride() : kernel_.lane_block;
    const EpilogueF32 epilogue{bias.data(), low, high, nullptr};
    for (std::size_t first = 0; first < shape_.k; first += depth) {
      const std::size_t part = std::min(depth, shape_.k - first);
      std::vector<float> lanes;
      for (std::size_t block = 0; block < lane_stride() / width; ++block) {
        const float* from = lane_.data() + (block * shape_.k + first) * width;
        lanes.insert(lanes.end(), from, from + part * width);
      }
      kernel_.multiply({broadcast_.data(),
                        lanes.data(),
                        shape_.k,
                        shape_.rows,
                        shape_.lanes,
                        &epilogue,
                        out.data(),
                        stride(),
                        {},
                        shape_.in_place ? width : 0,
                        first,
                        part,
                        copies_.data()});
    }
  }

  /// The float64 result and the bound gamma_{k+1} (sum |ab| + |bias|), u = 2^-24.
  void check() const {
    const double unit = static_cast<double>(shape_.k + 1) * 0x1p-24, gamma = unit / (1 - unit);
    for (std::size_t r = 0; r < shape_.rows; ++r) {
      for (std::size_t l = 0; l < shape_.lanes; ++l) {
        const double start = bias[shape_.axis == ChannelAxis::rows ? r : l];
        double sum = start, magnitude = std::fabs(start);
        for (std::size_t i = 0; i < shape_.k; ++i) {
          const double term = static_cast<double>(a[r * shape_.k + i]) * b[i * shape_.lanes + l];
          sum += term;
          magnitude += std::fabs(term);
        }
        const double expected = std::min(std::max(sum, double{low}), double{high});
        const double error = std::fabs(out[r * stride() + l] - expected);
        if (!(error <= gamma * magnitude)) {
          fail(__FILE__, __LINE__,
               describe(shape_) + " at " + std::to_string(r) + ", " + std::to_string(l) + ": error " +
                   std::to_string(error / magnitude * 0x1p24) + " ulp");
        }
      }
      for (std::size_t l = shape_.lanes; l < stride() && r + 1 < shape_.rows; ++l) {
        CHECK_EQ(out[r * stride() + l], kUntouched);
      }
    }
  }

 private:
  /// Rows beyond the last are zero; lanes beyond the last hold NaN, which must reach no output.
  void pack() {
    const std::size_t row_block = kernel_.row_block, lane_block = kernel_.lane_block, k = shape_.k;
    for (std::size_t i = 0; i < broadcast_.size(); ++i) {
      const std::size_t block = i / (row_block * k), r = block * row_block + i % row_block;
      broadcast_[i] = r < shape_.rows ? a[r * k + i / row_block % k] : 0.0f;
    }
    for (std::size_t i = 0; i < lane_.size(); ++i) {
      const std::size_t width = shape_.in_place ? lane_stride() : lane_block, block = i / (width * k);
      const std::size_t l = block * width + i % width;
      lane_[i] = l < shape_.lanes ? b[i / width % k * shape_.lanes + l] : kNan;
    }
  }

  const DenseKernel& kernel_;
  Shape shape_;

 public:
  std::vector<float> a, b;
  GuardedBuffer<float> bias;
  float low = -kInf, high = kInf, sum_low = -kInf, sum_high = kInf;
  std::vector<float> residual;  // as the output, or empty

 private:
  GuardedBuffer<float> broadcast_, lane_, copies_;

 public:
  GuardedBuffer<float> out;
};

}  // namespace harness
