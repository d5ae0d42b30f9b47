#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "dense_f32_case.h"
#include "harness.h"
#include "kernel_table.h"

using namespace gristmill;
using harness::describe;
using harness::Edge;
using harness::kernel_of;
using harness::kInf;
using harness::kNan;
using harness::kUntouched;
using harness::Problem;
using harness::Shape;

namespace {

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
    shapes.push_back({40, 150, 2310, axis});
    shapes.push_back({29, 600, 70, axis});
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
          {rows, lanes, lanes * 7 % 31 + 1, ChannelAxis::rows, 0, lanes % 2 == 0 ? Edge::low : Edge::high});
  for (Shape shape : shapes) {
    Problem packed(dense(isa), shape, shape.k);
    packed.run();
    for (const bool in_place : {false, true}) {
      shape.in_place = in_place;
      Problem other(dense(isa), shape, shape.k);
      other.run();
      CHECK_SAME(other.out.view(), packed.out.view(), describe(shape));
      other.run_in_slices(shape.k / 3 + 1);
      CHECK_SAME(other.out.view(), packed.out.view(), describe(shape) + " in slices");
    }
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
  for (std::size_t i = 0, count = shapes.size(); i < count; ++i) {
    shapes.push_back(shapes[i]);
    shapes.back().in_place = shapes[i].axis == ChannelAxis::rows;
  }
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
