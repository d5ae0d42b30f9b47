#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "guarded_buffer.h"
#include "harness.h"
#include "kernel_table.h"

using namespace gristmill;
using harness::Edge;
using harness::GuardedBuffer;

namespace {

constexpr std::uint8_t kUntouched = 0xA5;
constexpr ChannelAxis kAxes[] = {ChannelAxis::rows, ChannelAxis::lanes};
constexpr OutputType kTypes[] = {OutputType::u8, OutputType::s8, OutputType::s32, OutputType::f32};

std::size_t rounded_up(std::size_t n, std::size_t block) { return (n + block - 1) / block * block; }
std::size_t size_of(OutputType type) { return type == OutputType::u8 || type == OutputType::s8 ? 1 : 4; }

/// Which weights: any in [-127, 127], or only pairs that the no_saturation kernels take.
enum class Weights { any, unsaturated };

const DenseS8Variant& variant_of(Isa isa, Weights weights) {
  const DenseKernels& dense = kernel_table(isa).dense;
  return weights == Weights::any ? dense.general : dense.no_saturation;
}

const DenseKernel& kernel_of(const DenseS8Variant& variant, ChannelAxis axis) {
  return axis == ChannelAxis::rows ? variant.channels_in_rows : variant.channels_in_lanes;
}

std::int8_t random_weight(harness::Random& random) {
  const std::int64_t w = random.integer(-160, 160);
  return static_cast<std::int8_t>(std::clamp<std::int64_t>(w, -127, 127));
}

/// A weight that may stand next to `other`: of opposite sign, or small enough.
std::int8_t random_neighbour(harness::Random& random, int other) {
  if (random.integer(0, 1) == 0) return static_cast<std::int8_t>(other < 0 ? 127 : -127);
  const int room = std::min(128 - std::abs(other), 127);
  return static_cast<std::int8_t>(random.integer(0, 1) == 0 ? room : -room);
}

/// W[channels][k] s8 and X[positions][k] u8, in plain storage.
struct Operands {
  Operands(std::size_t channels, std::size_t positions, std::size_t depth)
      : k(depth), w(channels * depth), x(positions * depth) {}

  void randomize(Weights weights, std::uint64_t seed) {
    harness::Random random(seed);
    for (std::size_t i = 0; i < w.size(); ++i) {
      const bool second = i % k % 2 == 1 && weights == Weights::unsaturated;
      w[i] = second ? random_neighbour(random, w[i - 1]) : random_weight(random);
    }
    for (auto& value : x) {
      value = static_cast<std::uint8_t>(std::clamp<std::int64_t>(random.integer(-64, 319), 0, 255));
    }
  }

  std::size_t k;
  std::vector<std::int8_t> w;
  std::vector<std::uint8_t> x;
};

/// Packs [count][k] into [blocks][ceil(k / 4)][block][4]; rows beyond the last are zero where `blank`, and
/// else, like the K beyond the last of activations, anything.
template <class T>
void pack(const std::vector<T>& values, std::size_t count, std::size_t k, std::size_t block, T flip,
          bool weights, bool broadcast, std::uint8_t* packed) {
  const std::size_t groups = (k + 3) / 4;
  for (std::size_t i = 0; i < rounded_up(count, block) * groups * 4; ++i) {
    const std::size_t row = i / (block * groups * 4) * block + i / 4 % block;
    const std::size_t column = i / (block * 4) % groups * 4 + i % 4;
    const bool inside = row < count && column < k;
    const bool zero = weights ? column >= k || (broadcast && row >= count) : broadcast && row >= count;
    const auto anything = static_cast<std::uint8_t>(i * 37);
    packed[i] = inside ? static_cast<std::uint8_t>(values[row * k + column] ^ flip) : zero ? 0 : anything;
  }
}

/// What the epilogue makes of an exact sum, by the definition.
template <class Store>
void finish(std::int64_t sum, float scale, const EpilogueS8& e, Store&& store) {
  CHECK(sum >= std::numeric_limits<std::int32_t>::min() && sum <= std::numeric_limits<std::int32_t>::max());
  const auto acc = static_cast<std::int32_t>(sum);
  const float value = std::min(e.high, std::max(e.low, static_cast<float>(acc) * scale));
  if (e.type == OutputType::s32) store(&acc, 4);
  if (e.type == OutputType::f32) store(&value, 4);
  if (e.type == OutputType::u8 || e.type == OutputType::s8) {
    const auto q = static_cast<std::int32_t>(std::nearbyint(double{value})) + e.zero_point;
    store(&q, 1);
  }
}

struct Shape {
  std::size_t rows, lanes, k;
  ChannelAxis axis = ChannelAxis::rows;
  OutputType type = OutputType::u8;
  std::size_t gap = 0;  // elements between the rows of the output
  Edge edge = Edge::high;

  std::size_t channels() const { return axis == ChannelAxis::rows ? rows : lanes; }
  std::size_t positions() const { return axis == ChannelAxis::rows ? lanes : rows; }
  std::size_t stride() const { return lanes + gap; }
  std::size_t out_bytes() const { return (rows == 0 ? 0 : (rows - 1) * stride() + lanes) * size_of(type); }
  std::string text() const {
    return std::to_string(rows) + "x" + std::to_string(lanes) + " k=" + std::to_string(k) +
           (axis == ChannelAxis::rows ? " channels in rows" : " channels in lanes") + " type " +
           std::to_string(static_cast<int>(type));
  }
};

/// One product with its packed operands and its output, each next to a guard page.
class Problem {
 public:
  Problem(const DenseS8Variant& variant, const Shape& shape)
      : variant_(variant),
        kernel_(kernel_of(variant, shape.axis)),
        shape_(shape),
        operands(shape.channels(), shape.positions(), shape.k),
        bias(shape.channels(), shape.edge),
        scale(shape.type == OutputType::s32 ? 0 : shape.channels(), shape.edge),
        broadcast_(rounded_up(shape.rows, kernel_.row_block) * rounded_up(shape.k, 4), shape.edge),
        lane_(rounded_up(shape.lanes, kernel_.lane_block) * rounded_up(shape.k, 4), shape.edge),
        folded_(shape.channels(), shape.edge),
        out(shape.out_bytes(), shape.edge) {
    harness::Random random(shape.k + 1);
    for (auto& value : bias.span()) value = static_cast<std::int32_t>(random.integer(-70000, 70000));
    const float unit = 1.0f / (1.0f + 120.0f * std::sqrt(static_cast<float>(shape.k)));
    for (auto& value : scale.span()) value = unit * static_cast<float>(0.5 + random.unit());
    if (shape.type == OutputType::s8) epilogue.low = -108, epilogue.high = 147, epilogue.zero_point = -20;
  }

  void run() {
    std::ranges::fill(out.span(), kUntouched);
    pack_operands();
    run_part(0, shape_.rows, 0, shape_.lanes);
  }

  /// Rows [row, row + rows) and lanes [lane, lane + lanes), which start at block boundaries.
  void run_part(std::size_t row, std::size_t rows, std::size_t lane, std::size_t lanes) {
    const std::size_t bytes = rounded_up(shape_.k, 4);
    const std::size_t channel = shape_.axis == ChannelAxis::rows ? row : lane;
    EpilogueS8 e = epilogue;
    e.bias = folded_.data() + channel;
    e.scale = shape_.type == OutputType::s32 ? nullptr : scale.data() + channel;
    e.type = shape_.type;
    e.small_scales = std::ranges::all_of(scale.view(), [](float s) { return std::fabs(s) < 1.0f; });
    const DenseJob job{broadcast_.data() + row * bytes,
                       lane_.data() + lane * bytes,
                       shape_.k,
                       rows,
                       lanes,
                       &e,
                       out.data() + (row * shape_.stride() + lane) * size_of(shape_.type),
                       shape_.stride()};
    kernel_.multiply(job);
  }

  /// Compares with sums in int64, and that nothing between the rows was written.
  void check() const {
    std::vector<std::uint8_t> expected(out.size(), kUntouched);
    EpilogueS8 e = epilogue;
    e.type = shape_.type;
    for (std::size_t r = 0; r < shape_.rows; ++r) {
      for (std::size_t l = 0; l < shape_.lanes; ++l) {
        const bool in_rows = shape_.axis == ChannelAxis::rows;
        const std::size_t c = in_rows ? r : l, p = in_rows ? l : r;
        std::int64_t sum = bias[c];
        for (std::size_t i = 0; i < shape_.k; ++i) {
          sum += std::int64_t{operands.w[c * shape_.k + i]} * operands.x[p * shape_.k + i];
        }
        finish(sum, shape_.type == OutputType::s32 ? 1.0f : scale[c], e,
               [&](const void* from, std::size_t n) {
                 std::memcpy(&expected[(r * shape_.stride() + l) * n], from, n);
               });
      }
    }
    CHECK_SAME(out.view(), std::span<const std::uint8_t>(expected), shape_.text());
  }

  /// Folds the kernel's shift of the activations into the bias, as drivers do.
  void pack_operands() {
    const bool in_rows = shape_.axis == ChannelAxis::rows;
    const std::size_t k = shape_.k;
    for (std::size_t c = 0; c < shape_.channels(); ++c) {
      std::int32_t sum = 0;
      for (std::size_t i = 0; i < k; ++i) sum += operands.w[c * k + i];
      folded_[c] = bias[c] + (variant_.flip == 0 ? 0 : 128 * sum);
    }
    pack<std::int8_t>(operands.w, shape_.channels(), k, in_rows ? kernel_.row_block : kernel_.lane_block, 0,
                      true, in_rows, in_rows ? broadcast_.data() : lane_.data());
    pack(operands.x, shape_.positions(), k, in_rows ? kernel_.lane_block : kernel_.row_block, variant_.flip,
         false, !in_rows, in_rows ? lane_.data() : broadcast_.data());
  }

 private:
  const DenseS8Variant& variant_;
  const DenseKernel& kernel_;
  Shape shape_;

 public:
  Operands operands;
  GuardedBuffer<std::int32_t> bias;
  GuardedBuffer<float> scale;
  EpilogueS8 epilogue{nullptr, nullptr, -100, 155, 100, OutputType::u8};

 private:
  GuardedBuffer<std::uint8_t> broadcast_, lane_;
  GuardedBuffer<std::int32_t> folded_;

 public:
  GuardedBuffer<std::uint8_t> out;
};

void check_shape(Isa isa, Weights weights, const Shape& shape) {
  Problem problem(variant_of(isa, weights), shape);
  problem.operands.randomize(weights, shape.rows * 71 + shape.lanes * 7 + shape.k);
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
        Problem problem(variant_of(isa, weights), shape);
        problem.operands.randomize(weights, k);
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
      if (weights == Weights::unsaturated && w0 * w1 > 0 && std::abs(w0) + std::abs(w1) > 128) continue;
      for (const std::size_t k : {std::size_t{67}, std::size_t{harness::quick() ? 1030u : 65793u}}) {
        for (const ChannelAxis axis : kAxes) {
          Problem problem(variant_of(isa, weights), {6, 9, k, axis, OutputType::s32});
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
        Problem problem(variant_of(isa, Weights::any), {41, 41, 1, axis, range.type});
        std::ranges::fill(problem.scale.span(), scale);
        problem.epilogue = {nullptr, nullptr, range.low, range.high, range.zero_point, range.type};
        problem.operands.randomize(Weights::any, 1);
        for (std::size_t c = 0; c < 41; ++c) {
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
      Problem whole(variant, shape), parts(variant, shape);
      for (Problem* problem : {&whole, &parts}) problem->operands.randomize(weights, 9);
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
        Problem problem(variant_of(isa, weights), shape);
        problem.run();
        for (const std::uint8_t value : problem.out.view()) CHECK_EQ(value, kUntouched);
      }
    }
  }
}
