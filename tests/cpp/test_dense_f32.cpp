#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "guarded_buffer.h"
#include "harness.h"
#include "kernel_table.h"

using namespace gristmill;
using harness::Edge;
using harness::GuardedBuffer;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kUntouched = 12345.0f;

struct Shape {
  std::size_t rows, lanes, k;
  ChannelAxis axis = ChannelAxis::rows;
  std::size_t gap = 0;  // elements between the rows of the output
  Edge edge = Edge::high;
  bool in_place = false;  // the lane operand is a matrix
};

std::size_t rounded_up(std::size_t n, std::size_t block) { return (n + block - 1) / block * block; }

std::string describe(const Shape& s) {
  return std::to_string(s.rows) + "x" + std::to_string(s.lanes) + " k=" + std::to_string(s.k) +
         (s.axis == ChannelAxis::rows ? " channels in rows" : " channels in lanes");
}

const DenseKernel& kernel_of(const DenseKernels& kernels, ChannelAxis axis) {
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
        out(shape.rows == 0 ? 0 : (shape.rows - 1) * stride() + shape.lanes, shape.edge) {
    harness::Random random(seed);
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
                       shape_.in_place ? lane_stride() : 0};
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
          harness::fail(__FILE__, __LINE__,
                        describe(shape_) + " at " + std::to_string(r) + ", " + std::to_string(l) +
                            ": error " + std::to_string(error / magnitude * 0x1p24) + " ulp");
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
  GuardedBuffer<float> broadcast_, lane_;

 public:
  GuardedBuffer<float> out;
};

const DenseKernels& dense(Isa isa) { return kernel_table(isa).dense; }

constexpr ChannelAxis kAxes[] = {ChannelAxis::rows, ChannelAxis::lanes};

/// Shapes beyond one slice of K, one chunk of rows and one chunk of lanes.
std::vector<Shape> large_shapes() {
  std::vector<Shape> shapes;
  for (const ChannelAxis axis : kAxes) {
    if (harness::quick()) {
      shapes.push_back({9, 49, 576, axis, 3});
      shapes.push_back({140, 17, 330, axis, 0, Edge::low});
      shapes.push_back({1, 200, 70, axis});
      shapes.push_back({130, 1, 77, axis, 5});
      shapes.push_back({270, 98, 300, axis, 2});
      continue;
    }
    shapes.push_back({64, 49, 576, axis, 3});
    shapes.push_back({131, 150, 1030, axis});
    shapes.push_back({300, 350, 1030, axis});
    shapes.push_back({1, 200, 2304, axis, 0, Edge::low});
    shapes.push_back({300, 1, 777, axis, 5});
    shapes.push_back({29, 98, 4100, axis, 1, Edge::low});
  }
  return shapes;
}

}  // namespace

ISA_TEST(dense_f32_every_small_shape) {
  const std::size_t step = harness::quick() ? 5 : 1;
  std::uint64_t seed = 0;
  for (std::size_t rows = 1; rows <= 67; rows += step) {
    for (std::size_t lanes = 1; lanes <= 67; lanes += step) {
      for (const ChannelAxis axis : kAxes) {
        ++seed;
        const Edge edge = seed / 2 % 2 == 0 ? Edge::low : Edge::high;
        Problem problem(dense(isa), {rows, lanes, seed * 7 % 68, axis, seed % 3 * 2, edge}, seed);
        problem.run();
        problem.check();
      }
    }
  }
}

ISA_TEST(dense_f32_every_small_k) {
  for (std::size_t k = 0; k <= 67; k += harness::quick() ? 3 : 1) {
    for (const std::size_t rows : {1u, 3u, 8u, 13u}) {
      for (const std::size_t lanes : {1u, 5u, 24u, 49u}) {
        Problem problem(dense(isa), {rows, lanes, k, kAxes[k % 2]}, k);
        problem.run();
        problem.check();
      }
    }
  }
}

ISA_TEST(dense_f32_large_shapes) {
  for (const Shape& shape : large_shapes()) {
    Problem problem(dense(isa), shape, shape.k);
    problem.low = -0.25f;
    problem.high = 6.0f;
    problem.run();
    problem.check();
  }
}

ISA_TEST(dense_f32_does_not_depend_on_the_split) {
  const DenseKernels& kernels = dense(isa);
  std::vector<Shape> shapes = large_shapes();
  for (const ChannelAxis axis : kAxes)
    for (std::size_t lanes = 1; lanes <= 2 * kernel_of(kernels, axis).lane_block; ++lanes)
      shapes.push_back({17, lanes, 20, axis});
  for (const Shape& shape : shapes) {
    const std::size_t row = kernel_of(kernels, shape.axis).row_block;
    const std::size_t lane = kernel_of(kernels, shape.axis).lane_block;
    Problem whole(kernels, shape, shape.k);
    whole.run();
    for (const auto& [row_step, lane_step] :
         {std::pair{row, lane}, {5 * row, 2 * lane}, {2 * row, 9 * lane}}) {
      Problem parts(kernels, shape, shape.k);
      parts.run_in_parts(row_step, lane_step);
      CHECK_SAME(parts.out.view(), whole.out.view(), describe(shape));
    }
  }
}

ISA_TEST(dense_f32_does_not_depend_on_where_lanes_lie) {
  std::vector<Shape> shapes = large_shapes();
  std::erase_if(shapes, [](const Shape& shape) { return shape.axis == ChannelAxis::lanes; });
  for (const std::size_t rows : {1u, 3u, 8u, 17u})
    for (std::size_t lanes = 1; lanes <= 101; lanes += harness::quick() ? 5 : 1)
      shapes.push_back(
          {rows, lanes, lanes * 7 % 31, ChannelAxis::rows, 0, lanes % 2 == 0 ? Edge::low : Edge::high});
  for (Shape shape : shapes) {
    Problem packed(dense(isa), shape, shape.k);
    packed.run();
    shape.in_place = true;
    Problem in_place(dense(isa), shape, shape.k);
    in_place.run();
    CHECK_SAME(in_place.out.view(), packed.out.view(), describe(shape));
  }
}

ISA_TEST(dense_f32_does_not_depend_on_the_batch) {
  const DenseKernels& kernels = dense(isa);
  const Shape full{3 * kernels.f32_channels_in_rows.row_block, 2 * kernels.f32_channels_in_rows.lane_block,
                   35, ChannelAxis::rows};
  Problem reference(kernels, full, 1), problem(kernels, full, 1);
  reference.run();
  problem.run();
  const std::size_t step = harness::quick() ? 3 : 1;
  for (std::size_t rows = 1; rows <= full.rows; rows += step) {
    for (std::size_t lanes = 1; lanes <= full.lanes; lanes += step) {
      std::ranges::fill(problem.out.span(), kUntouched);
      problem.run_part(0, rows, 0, lanes);
      for (std::size_t r = 0; r < full.rows; ++r) {
        for (std::size_t l = 0; l < full.lanes; ++l) {
          const std::size_t i = r * full.lanes + l;
          CHECK_EQ(problem.out[i], r < rows && l < lanes ? reference.out[i] : kUntouched);
        }
      }
    }
  }
}

ISA_TEST(dense_f32_nothing_to_do_writes_nothing) {
  for (const ChannelAxis axis : kAxes) {
    for (const Shape& shape : {Shape{0, 9, 5, axis}, Shape{9, 0, 5, axis}, Shape{0, 0, 0, axis}}) {
      Problem problem(dense(isa), shape, 1);
      problem.run();
      for (const float value : problem.out.view()) CHECK_EQ(value, kUntouched);
    }
  }
}

ISA_TEST(dense_f32_clamps) {
  constexpr float kLimits[][2] = {{0, kInf}, {0, 6}, {-1, 1}, {-kInf, 2}, {-kInf, kInf}};
  constexpr float kValues[] = {-kInf, -7, -1, -0.0f, 0, 0.5f, 1, 6, 7, kInf};
  for (const ChannelAxis axis : kAxes) {
    for (const auto& [low, high] : kLimits) {
      for (const float value : kValues) {
        Problem problem(dense(isa), {7, 31, 3, axis}, 1);
        problem.low = low;
        problem.high = high;
        std::ranges::fill(problem.a, 0.0f);
        std::ranges::fill(problem.bias.span(), value);
        problem.run();
        for (const float result : problem.out.view()) CHECK_EQ(result, std::min(std::max(value, low), high));
      }
    }
  }
}

ISA_TEST(dense_f32_adds_residuals_as_a_separate_step) {
  std::vector<Shape> shapes = large_shapes();
  for (const ChannelAxis axis : kAxes)
    for (std::size_t lanes = 1; lanes <= 101; lanes += harness::quick() ? 5 : 1)
      shapes.push_back({lanes % 19 + 1, lanes, 3, axis, lanes % 3});
  for (const Shape& shape : shapes) {
    Problem plain(dense(isa), shape, shape.k), added(dense(isa), shape, shape.k);
    plain.low = added.low = -1;
    added.sum_low = 0;
    added.sum_high = 2;
    harness::Random random(shape.lanes);
    added.residual.resize(added.out.size());
    for (float& value : added.residual) value = static_cast<float>(random.unit() * 2 - 1);
    added.residual[0] = kNan;
    plain.run();
    added.run();
    for (std::size_t i = 0; i < plain.out.size(); ++i) {
      if (i % plain.stride() >= shape.lanes) continue;
      const float sum = plain.out[i] + added.residual[i], raised = sum < 0 ? 0 : sum;
      plain.out[i] = raised > 2 ? 2 : raised;
    }
    CHECK_SAME(added.out.view(), plain.out.view(), describe(shape));
  }
}

ISA_TEST(dense_f32_nan_and_inf_propagate) {
  for (const ChannelAxis axis : kAxes) {
    const DenseKernel& kernel = kernel_of(dense(isa), axis);
    const std::size_t rows = 2 * kernel.row_block + 1, lanes = 2 * kernel.lane_block + 1, k = 9;
    for (std::size_t r = 0; r < rows; ++r) {
      for (const bool clamped : {false, true}) {
        Problem problem(dense(isa), {rows, lanes, k, axis}, r);
        if (clamped) problem.low = 0, problem.high = 6;
        problem.a[r * k + r % k] = kNan;
        std::fill_n(&problem.b[0], lanes, kInf);
        problem.run();
        for (std::size_t i = 0; i < problem.out.size(); ++i) {
          if (i / lanes == r) {
            CHECK(std::isnan(problem.out[i]));
          } else {
            const float infinity = problem.a[i / lanes * k] < 0 ? -kInf : kInf;
            CHECK_EQ(problem.out[i], std::min(std::max(infinity, problem.low), problem.high));
          }
        }
      }
    }
  }
}

ISA_TEST(dense_f32_zero_times_inf_is_nan) {
  Problem problem(dense(isa), {5, 21, 4}, 3);
  std::ranges::fill(problem.a, 0.0f);
  problem.b[2 * 21 + 20] = -kInf;
  problem.low = -1;
  problem.high = 1;
  problem.run();
  for (std::size_t i = 0; i < problem.out.size(); ++i) {
    if (i % 21 == 20) {
      CHECK(std::isnan(problem.out[i]));
    } else {
      CHECK_EQ(problem.out[i], problem.bias[i / 21]);
    }
  }
}
