#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "dense_s8_case.h"

namespace {

void check_shape(Isa isa, Weights weights, const Shape& shape) {
  Problem problem(isa, weights, shape);
  problem.randomize(shape.rows * 71 + shape.lanes * 7 + shape.k);
  problem.run();
  problem.check();
}

constexpr Weights kWeights[] = {Weights::any, Weights::unsaturated};

}  // namespace

/// One product of 67 x 67 for each K, checked once, of which every smaller one is a part.
ISA_TEST(dense_s8_every_m_n_k) {
  constexpr std::size_t kMost = 67;
  const std::size_t step = harness::quick() ? 7 : isa == Isa::scalar ? 3 : 1;
  for (const Weights weights : kWeights) {
    for (const ChannelAxis axis : kAxes) {
      for (std::size_t k = 1; k <= kMost; k += step) {
        const Shape shape{kMost, kMost, k, axis, OutputType::u8, 5, k % 2 == 0 ? Edge::low : Edge::high};
        Problem problem(isa, weights, shape);
        problem.randomize(k);
        problem.run();
        problem.check();
        const std::vector<std::uint8_t> whole(problem.out.view().begin(), problem.out.view().end());
        std::vector<std::uint8_t> expected(whole.size(), kUntouched);
        for (std::size_t rows = 1; rows <= kMost; rows += step) {
          std::ranges::fill(expected, kUntouched);
          for (std::size_t lanes = 1; lanes <= kMost; ++lanes) {
            for (std::size_t r = 0; r < rows; ++r) {
              const std::size_t last = r * shape.stride() + lanes - 1;
              expected[last] = whole[last];
            }
            if (lanes % step != 0) continue;
            std::ranges::fill(problem.out.span(), kUntouched);
            problem.run_part(0, rows, 0, lanes);
            if (std::memcmp(problem.out.data(), expected.data(), expected.size()) == 0) continue;
            CHECK_SAME(problem.out.view(), std::span<const std::uint8_t>(expected),
                       Shape({rows, lanes, k, axis}).text());
          }
        }
      }
    }
  }
}

/// Operands, parameters and output end at guard pages; every type, gaps between rows, K of 0 and around 4.
ISA_TEST(dense_s8_touches_what_it_may) {
  const std::size_t step = harness::quick() ? 11 : 3;
  std::size_t turn = 0;
  for (std::size_t rows = 1; rows <= 35; rows += step) {
    for (std::size_t lanes = 1; lanes <= 67; lanes += step) {
      for (const ChannelAxis axis : kAxes) {
        for (const OutputType type : kTypes) {
          for (const Edge edge : {Edge::low, Edge::high}) {
            ++turn;
            check_shape(isa, kWeights[turn % 2], {rows, lanes, turn * 5 % 19, axis, type, turn % 4, edge});
          }
        }
      }
    }
  }
}

ISA_TEST(dense_s8_large_shapes) {
  constexpr Shape kShapes[] = {{130, 49, 576},
                               {132, 81, 576},
                               {260, 35, 2052, ChannelAxis::rows, OutputType::s8},
                               {9, 150, 2304, ChannelAxis::rows, OutputType::s8},
                               {70, 98, 1030, ChannelAxis::lanes},
                               {200, 33, 64, ChannelAxis::lanes, OutputType::s32}};
  for (const Weights weights : kWeights) {
    for (const Shape& shape : kShapes) check_shape(isa, weights, shape);
    for (std::size_t batch = 1; batch <= 5; ++batch) {
      check_shape(isa, weights, {batch, 300, 1024, ChannelAxis::lanes, OutputType::f32});
    }
  }
}

/// The greatest products of either sign in every position of a pair, and the longest K that int32 holds.
ISA_TEST(dense_s8_extremes) {
  constexpr int kPairs[][2] = {{127, 127}, {-127, -127}, {127, -127}, {-127, 127},
                               {127, 1},   {64, 64},     {-64, -64},  {0, -127}};
  constexpr std::uint8_t kPixels[] = {0, 1, 127, 128, 129, 255};
  for (const Weights weights : kWeights) {
    for (const auto& [w0, w1] : kPairs) {
      const bool fits = w0 * w1 <= 0 || std::abs(w0) + std::abs(w1) <= 128;
      for (const std::size_t k : {std::size_t{67}, std::size_t{harness::quick() ? 1030u : 65793u}}) {
        for (const ChannelAxis axis : kAxes) {
          if (weights == Weights::unsaturated && axis == ChannelAxis::lanes && !fits) continue;
          Problem problem(isa, weights, {6, 9, k, axis, OutputType::s32});
          std::ranges::fill(problem.bias.span(), 0);
          for (std::size_t i = 0; i < problem.operands.w.size(); ++i) {
            problem.operands.w[i] = static_cast<std::int8_t>(i % k % 2 == 0 ? w0 : w1);
          }
          for (std::size_t i = 0; i < problem.operands.x.size(); ++i) {
            problem.operands.x[i] = kPixels[i / k % std::size(kPixels)];
          }
          problem.run();
          problem.check();
        }
      }
    }
  }
}

/// Sums next to ties and to the bounds of every type, with clamps that are not whole numbers.
ISA_TEST(dense_s8_rounds_and_clamps) {
  struct Range {
    OutputType type;
    float low, high;
    std::int32_t zero_point;
  };
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr Range kRanges[] = {
      {OutputType::u8, 0, 255, 0},    {OutputType::u8, -255, 0, 255},     {OutputType::u8, -128, 127, 128},
      {OutputType::u8, 0, 23.5f, 7},  {OutputType::s8, -128, 127, 0},     {OutputType::s8, 0, 255, -128},
      {OutputType::s8, -255, 0, 127}, {OutputType::s8, -2.5f, 2.5f, 3},   {OutputType::f32, -kInf, kInf, 0},
      {OutputType::f32, 0, 6, 0},     {OutputType::f32, -1.25f, 1e30f, 0}};
  for (const Range& range : kRanges) {
    for (const ChannelAxis axis : kAxes) {
      for (const float scale : {0.5f, 0.25f, 1.0f, -0.75f, 0.1f, 1e-30f, 1e30f, -1e30f}) {
        Problem problem(isa, Weights::any, {44, 41, 1, axis, range.type});
        std::ranges::fill(problem.scale.span(), scale);
        problem.epilogue = {nullptr, nullptr, range.low, range.high, range.zero_point, range.type};
        problem.randomize(1);
        for (std::size_t c = 0; c < problem.bias.size(); ++c) {
          problem.bias[c] = static_cast<std::int32_t>(c) * (c % 3 == 0 ? 30 : 1) - 20;
          problem.operands.w[c] = static_cast<std::int8_t>(c % 3);
        }
        problem.run();
        problem.check();
      }
    }
  }
}

ISA_TEST(dense_s8_does_not_depend_on_the_split) {
  for (const Weights weights : kWeights) {
    const DenseS8Variant& variant = variant_of(isa, weights);
    for (const ChannelAxis axis : kAxes) {
      const DenseKernel& kernel = kernel_of(variant, axis);
      const Shape shape{3 * kernel.row_block + 1, 3 * kernel.lane_block + 1, 50, axis, OutputType::f32};
      Problem whole(isa, weights, shape), parts(isa, weights, shape);
      for (Problem* problem : {&whole, &parts}) problem->randomize(9);
      whole.run();
      parts.pack_operands();
      for (std::size_t row = 0; row < shape.rows; row += kernel.row_block) {
        for (std::size_t lane = 0; lane < shape.lanes; lane += kernel.lane_block) {
          parts.run_part(row, std::min(kernel.row_block, shape.rows - row), lane,
                         std::min(kernel.lane_block, shape.lanes - lane));
        }
      }
      CHECK_SAME(parts.out.view(), whole.out.view(), shape.text());
    }
  }
}

ISA_TEST(dense_s8_nothing_to_do_writes_nothing) {
  for (const Weights weights : kWeights) {
    for (const ChannelAxis axis : kAxes) {
      for (const Shape& shape : {Shape{0, 9, 5, axis}, Shape{9, 0, 5, axis}, Shape{0, 0, 0, axis}}) {
        Problem problem(isa, weights, shape);
        problem.run();
        for (const std::uint8_t value : problem.out.view()) CHECK_EQ(value, kUntouched);
      }
    }
  }
}
