#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "coupled_weights.h"
#include "guarded_buffer.h"
#include "harness.h"
#include "kernel_table.h"

/// Dense int8 products with their packed operands, for the tests of kernels.
namespace {

using namespace gristmill;
using harness::Edge;
using harness::GuardedBuffer;

constexpr std::uint8_t kUntouched = 0xA5;
constexpr ChannelAxis kAxes[] = {ChannelAxis::rows, ChannelAxis::lanes};
constexpr OutputType kTypes[] = {OutputType::u8, OutputType::s8, OutputType::s32, OutputType::f32};

std::size_t rounded_up(std::size_t n, std::size_t block) { return (n + block - 1) / block * block; }
std::size_t size_of(OutputType type) { return type == OutputType::u8 || type == OutputType::s8 ? 1 : 4; }

/// Which weights: any in [-127, 127], or those of the no_saturation kernels: coupled, or only pairs that fit.
enum class Weights { any, unsaturated };

const DenseS8Variant& variant_of(Isa isa, Weights weights) {
  const DenseKernels& dense = kernel_table(isa).dense;
  return weights == Weights::any ? dense.general : dense.no_saturation;
}

/// Whether the kernels of that variant take couples.
bool takes_couples(Isa isa, Weights weights, ChannelAxis axis) {
  const DenseKernels& dense = kernel_table(isa).dense;
  return weights == Weights::unsaturated && axis == ChannelAxis::rows &&
         dense.no_saturation.channels_in_rows.multiply != dense.general.channels_in_rows.multiply;
}

/// The arrays of couples next to guard pages.
struct GuardedCouples {
  GuardedBuffer<std::uint16_t> order;
  GuardedBuffer<std::uint32_t> start, excess_group;
  GuardedBuffer<std::uint8_t> excess_weights;

  GuardedCouples(const CoupledWeights& coupled, std::size_t blocks, std::size_t groups, Edge edge)
      : order(blocks * groups + kGroupsAhead, edge),
        start(blocks + 1, edge),
        excess_group(coupled.at(0).start[blocks] * 2 * kCoupledRows, edge),
        excess_weights(excess_group.size() * 4, edge) {
    const DenseCouples from = coupled.at(0);
    std::copy_n(from.order, order.size(), order.data());
    std::copy_n(from.start, start.size(), start.data());
    std::copy_n(from.excess_group, excess_group.size(), excess_group.data());
    std::copy_n(static_cast<const std::uint8_t*>(from.excess_weights), excess_weights.size(),
                excess_weights.data());
  }
};

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

  void randomize(bool pairs_fit, std::uint64_t seed) {
    harness::Random random(seed);
    for (std::size_t i = 0; i < w.size(); ++i) {
      const bool second = i % k % 2 == 1 && pairs_fit;
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

/// Packs [count][k] as dense_kernels.h says, into groups of the kernel's depth or of four; what may be
/// anything there is not zero.
template <class T>
void pack(const std::vector<T>& values, std::size_t count, std::size_t k, const DenseKernel& kernel, T flip,
          bool weights, bool broadcast, std::uint8_t* packed) {
  const std::size_t block = broadcast ? kernel.row_block : kernel.lane_block;
  const std::size_t group = broadcast ? kernel.depth : 4, depth = rounded_up(k, kernel.depth);
  for (std::size_t i = 0; i < rounded_up(count, block) * depth; ++i) {
    const std::size_t row = i / (block * depth) * block + i / group % block;
    const std::size_t column = i / (block * group) % (depth / group) * group + i % group;
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
  Problem(Isa isa, Weights weights, const Shape& shape)
      : variant_(variant_of(isa, weights)),
        kernel_(kernel_of(variant_, shape.axis)),
        takes_couples_(takes_couples(isa, weights, shape.axis)),
        pairs_fit_(weights == Weights::unsaturated && shape.axis == ChannelAxis::lanes),
        shape_(shape),
        operands(shape.channels(), shape.positions(), shape.k),
        bias(shape.channels(), shape.edge),
        scale(shape.type == OutputType::s32 ? 0 : shape.channels(), shape.edge),
        broadcast_(rounded_up(shape.rows, kernel_.row_block) * rounded_up(shape.k, kernel_.depth),
                   shape.edge),
        lane_(rounded_up(shape.lanes, kernel_.lane_block) * rounded_up(shape.k, kernel_.depth), shape.edge),
        folded_(shape.channels(), shape.edge),
        out(shape.out_bytes(), shape.edge) {
    harness::Random random(shape.k + 1);
    for (auto& value : bias.span()) value = static_cast<std::int32_t>(random.integer(-70000, 70000));
    const float unit = 1.0f / (1.0f + 120.0f * std::sqrt(static_cast<float>(shape.k)));
    for (auto& value : scale.span()) value = unit * static_cast<float>(0.5 + random.unit());
    if (shape.type == OutputType::s8) epilogue.low = -108, epilogue.high = 147, epilogue.zero_point = -20;
  }

  void randomize(std::uint64_t seed) { operands.randomize(pairs_fit_, seed); }

  void run() {
    std::ranges::fill(out.span(), kUntouched);
    pack_operands();
    run_part(0, shape_.rows, 0, shape_.lanes);
  }

  /// Rows [row, row + rows) and lanes [lane, lane + lanes), which start at block boundaries.
  void run_part(std::size_t row, std::size_t rows, std::size_t lane, std::size_t lanes) {
    const std::size_t bytes = rounded_up(shape_.k, kernel_.depth);
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
                       shape_.stride(),
                       couples_from(row)};
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
    pack<std::int8_t>(operands.w, shape_.channels(), k, kernel_, 0, true, in_rows,
                      in_rows ? broadcast_.data() : lane_.data());
    pack(operands.x, shape_.positions(), k, kernel_, variant_.flip, false, !in_rows,
         in_rows ? lane_.data() : broadcast_.data());
    if (!takes_couples_) return;
    const std::size_t blocks = rounded_up(shape_.rows, kCoupledRows) / kCoupledRows, groups = (k + 3) / 4;
    const CoupledWeights coupled(reinterpret_cast<std::int8_t*>(broadcast_.data()), blocks, groups,
                                 kernel_table(Isa::scalar));
    couples_ = std::make_unique<GuardedCouples>(coupled, blocks, groups, shape_.edge);
  }

 private:
  DenseCouples couples_from(std::size_t row) const {
    if (!takes_couples_) return {};
    const std::size_t block = row / kCoupledRows;
    return {couples_->order.data() + block * ((shape_.k + 3) / 4), couples_->start.data() + block,
            couples_->excess_group.data(), couples_->excess_weights.data()};
  }

  const DenseS8Variant& variant_;
  const DenseKernel& kernel_;
  bool takes_couples_, pairs_fit_;
  Shape shape_;
  std::unique_ptr<GuardedCouples> couples_;

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

}  // namespace
