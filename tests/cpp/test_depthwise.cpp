#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "epilogue_case.h"
#include "guarded_buffer.h"
#include "harness.h"
#include "kernel_table.h"

using namespace gristmill;
using harness::Edge;
using harness::element_bytes;
using harness::EpilogueCase;
using harness::expected_output;
using harness::GuardedBuffer;
using harness::Random;
using harness::random_epilogue;
using harness::up_to;

namespace {

constexpr Edge kEdges[] = {Edge::low, Edge::high};

/// Where the taps of a plane are, and how its storage lies in memory.
struct Geometry {
  std::size_t rows, columns, step;
  std::vector<std::size_t> offsets;
  std::size_t slack = 64;
  Edge edge = Edge::high;

  std::size_t elements() const {
    return (rows - 1) * step + columns + *std::ranges::max_element(offsets) + slack;
  }
  std::string label() const {
    return std::to_string(rows) + "x" + std::to_string(columns) + " step " + std::to_string(step) + " taps " +
           std::to_string(offsets.size()) + " slack " + std::to_string(slack) +
           (edge == Edge::low ? " low" : " high");
  }
};

/// A padded plane split into stride x stride phases, as staging leaves it.
Geometry staged(std::size_t rows, std::size_t columns, std::size_t kernel_rows, std::size_t kernel_columns,
                std::size_t stride, std::size_t dilation) {
  const std::size_t pitch = columns + ((kernel_columns - 1) * dilation) / stride;
  const std::size_t phase = (rows + ((kernel_rows - 1) * dilation) / stride) * pitch;
  Geometry geometry{rows, columns, pitch, {}};
  for (std::size_t i = 0; i < kernel_rows * dilation; i += dilation) {
    for (std::size_t j = 0; j < kernel_columns * dilation; j += dilation) {
      const std::size_t at_phase = (i % stride) * stride + j % stride;
      geometry.offsets.push_back(at_phase * phase + i / stride * pitch + j / stride);
    }
  }
  return geometry;
}

void fail_at(const Geometry& geometry, std::size_t i, const std::string& got, const std::string& expected) {
  harness::fail(__FILE__, __LINE__,
                geometry.label() + ": row " + std::to_string(i / geometry.columns) + " column " +
                    std::to_string(i % geometry.columns) + " is " + got + ", expected " + expected);
}

using Weights = std::vector<std::int8_t>;
using Fill = std::uint8_t (*)(Random&);

std::uint8_t any_byte(Random& random) { return static_cast<std::uint8_t>(random.next() >> 32); }
std::uint8_t extreme_byte(Random& random) { return (random.next() >> 32) % 2 == 0 ? 0 : 255; }

/// Runs one level on a u8 plane and compares every output with the definition; the level's flip is applied
/// and folded as drivers do.
void check_s8(Isa isa, const Geometry& geometry, const Weights& weights, EpilogueCase epilogue,
              Random& random, Fill fill = any_byte) {
  const DepthwiseKernels& kernels = kernel_table(isa).depthwise;
  GuardedBuffer<std::uint8_t> source(geometry.elements(), geometry.edge);
  for (std::uint8_t& byte : source.span()) byte = static_cast<std::uint8_t>(fill(random) ^ kernels.flip);
  const std::size_t taps = weights.size();
  GuardedBuffer<std::uint8_t> packed(kernels.packed_s8_bytes(taps));
  kernels.pack_s8(weights.data(), taps, packed.data());

  std::int32_t shift = 0;
  for (std::int8_t weight : weights) shift += kernels.flip == 0 ? 0 : 128 * weight;
  EpilogueCase folded = epilogue;
  folded.bias += shift;
  const EpilogueS8 constants = folded.constants();
  const std::size_t bytes = element_bytes(epilogue.type), outputs = geometry.rows * geometry.columns;
  GuardedBuffer<std::uint8_t> out(outputs * bytes, geometry.edge);
  kernels.s8({source.data(), geometry.step, geometry.offsets.data(), packed.data(), taps, geometry.rows,
              geometry.columns, &constants, out.data(), geometry.slack});

  for (std::size_t i = 0; i < outputs; ++i) {
    const std::size_t pixel = i / geometry.columns * geometry.step + i % geometry.columns;
    std::int64_t sum = 0;
    for (std::size_t t = 0; t < taps; ++t) {
      const int x = source[pixel + geometry.offsets[t]] ^ kernels.flip;
      sum += std::int64_t{x} * weights[t];
    }
    std::uint32_t got = 0;
    std::memcpy(&got, &out[i * bytes], bytes);
    const std::uint32_t expected = expected_output(epilogue, sum);
    if (got != expected) fail_at(geometry, i, std::to_string(got), std::to_string(expected));
  }
}

Weights random_weights(Random& random, std::size_t taps) {
  Weights weights(taps);
  const std::int64_t most = std::int64_t{1} << random.integer(1, 7);
  for (std::int8_t& weight : weights)
    weight = static_cast<std::int8_t>(std::min<std::int64_t>(127, random.integer(-most, most)));
  return weights;
}

/// f32 with the error bound of any summation order; NaN and infinities go where the definition sends them.
void check_f32(Isa isa, const Geometry& geometry, Random& random, bool specials) {
  GuardedBuffer<float> source(geometry.elements(), geometry.edge);
  for (float& x : source.span()) x = static_cast<float>(random.unit() * 2 - 1);
  if (specials) {
    source[up_to(random, source.size() - 1)] = std::numeric_limits<float>::quiet_NaN();
    source[up_to(random, source.size() - 1)] = std::numeric_limits<float>::infinity();
  }
  const std::size_t taps = geometry.offsets.size(), outputs = geometry.rows * geometry.columns;
  GuardedBuffer<float> weights(taps), out(outputs, geometry.edge);
  for (float& w : weights.span()) w = static_cast<float>(random.unit() * 2 - 1);
  const float bias = static_cast<float>(random.unit());
  const EpilogueF32 epilogue{&bias, up_to(random, 1) == 0 ? 0.0f : -INFINITY,
                             up_to(random, 1) == 0 ? 1.0f : INFINITY};
  kernel_table(isa).depthwise.f32({source.data(), geometry.step, geometry.offsets.data(), weights.data(),
                                   taps, geometry.rows, geometry.columns, &epilogue, out.data(),
                                   geometry.slack});
  for (std::size_t i = 0; i < outputs; ++i) {
    const std::size_t pixel = i / geometry.columns * geometry.step + i % geometry.columns;
    double sum = bias, magnitude = std::fabs(bias);
    for (std::size_t t = 0; t < taps; ++t) {
      const double product = double{source[pixel + geometry.offsets[t]]} * double{weights[t]};
      sum += product;
      magnitude += std::fabs(product);
    }
    const double bound = magnitude * 0x1p-24 * static_cast<double>(taps + 2);
    const double expected = sum < epilogue.low ? epilogue.low : sum > epilogue.high ? epilogue.high : sum;
    const bool same = std::isnan(expected)   ? std::isnan(out[i])
                      : std::isinf(expected) ? double{out[i]} == expected
                                             : std::fabs(double{out[i]} - expected) <= bound;
    if (!same) fail_at(geometry, i, std::to_string(out[i]), std::to_string(expected));
  }
}

constexpr OutputType kTypes[] = {OutputType::u8, OutputType::s8, OutputType::s32, OutputType::f32};

void check_both(Isa isa, Geometry geometry, Random& random) {
  for (Edge edge : kEdges) {
    geometry.edge = edge;
    const OutputType type = kTypes[up_to(random, 3)];
    check_s8(isa, geometry, random_weights(random, geometry.offsets.size()), random_epilogue(random, type),
             random);
    check_f32(isa, geometry, random, up_to(random, 3) == 0);
  }
}

}  // namespace

ISA_TEST(depthwise_planes_of_networks) {
  Random random(1);
  for (std::size_t size : {112, 56, 28, 14, 7}) {
    if (harness::quick() && size > 56) continue;
    check_both(isa, staged(size, size, 3, 3, 1, 1), random);
    check_both(isa, staged(size, size, 3, 3, 2, 1), random);
    check_both(isa, staged(size, size, 5, 5, 1, 1), random);
    check_both(isa, staged(size, size, 5, 5, 2, 1), random);
    check_both(isa, staged(size, size, 7, 7, 1, 1), random);
  }
}

ISA_TEST(depthwise_every_width) {
  Random random(2);
  for (std::size_t columns = 1; columns <= 200; columns += harness::quick() ? 13 : 1) {
    for (std::size_t slack : {0, 62, 63, 64}) {
      for (std::size_t rows : {1, 2, 5}) {
        Geometry geometry = staged(rows, columns, 3, 3, 1, 1);
        geometry.slack = slack;
        check_both(isa, geometry, random);
        geometry.step += 70;  // too far apart to run over
        for (std::size_t t = 0; t < 9; ++t) geometry.offsets[t] = t / 3 * geometry.step + t % 3;
        check_both(isa, geometry, random);
      }
    }
  }
}

ISA_TEST(depthwise_kernel_shapes) {
  Random random(3);
  for (std::size_t kernel_rows : {1, 2, 3, 5, 7, 31}) {
    for (std::size_t kernel_columns : {1, 2, 3, 4, 5, 7, 9, 31}) {
      for (std::size_t stride : {1, 2, 3}) {
        for (std::size_t dilation : {1, 2}) {
          if (harness::quick() && kernel_rows * kernel_columns > 60) continue;
          check_both(isa, staged(9, 13, kernel_rows, kernel_columns, stride, dilation), random);
        }
      }
    }
  }
}

ISA_TEST(depthwise_random_taps) {
  Random random(4);
  for (int i = 0; i < (harness::quick() ? 50 : 3000); ++i) {
    Geometry geometry{1 + up_to(random, 20), 1 + up_to(random, 100), 0, {}};
    geometry.step = geometry.columns + (up_to(random, 1) == 0 ? up_to(random, 4) : up_to(random, 200));
    geometry.offsets.resize(1 + up_to(random, 11));
    for (std::size_t& offset : geometry.offsets) offset = up_to(random, 500);
    geometry.offsets[up_to(random, geometry.offsets.size() - 1)] = 0;
    geometry.slack = up_to(random, 1) == 0 ? 0 : up_to(random, 100);
    check_both(isa, geometry, random);
  }
}

ISA_TEST(depthwise_extremes_are_exact) {
  Random random(5);
  for (std::size_t taps : {1, 2, 3, 4, 9, 25, 49}) {
    Geometry geometry = staged(3, 40, 1, taps, 1, 1);
    for (int low : {-128, -127, 0, 127}) {
      for (int high : {-128, -127, 127}) {
        Weights weights(taps);
        for (std::int8_t& weight : weights)
          weight = static_cast<std::int8_t>(up_to(random, 1) == 0 ? low : high);
        for (Fill fill : {extreme_byte, +[](Random&) { return std::uint8_t{255}; },
                          +[](Random&) { return std::uint8_t{0}; }}) {
          for (OutputType type : {OutputType::s32, OutputType::u8})
            check_s8(isa, geometry, weights, random_epilogue(random, type), random, fill);
        }
      }
    }
  }
}

/// Every sum of weights around the limits that a level may set to its narrow accumulators.
ISA_TEST(depthwise_weights_around_limits) {
  Random random(6);
  for (int i = 0; i < (harness::quick() ? 100 : 5000); ++i) {
    const std::size_t taps = 2 + up_to(random, 7);
    Weights weights(taps);
    int left = static_cast<int>(random.integer(120, 136) << up_to(random, 1));
    for (std::int8_t& weight : weights) {
      weight = static_cast<std::int8_t>(random.integer(0, std::min(left, 127)));
      left -= weight;
    }
    if (up_to(random, 1) == 0) {
      for (std::int8_t& weight : weights) weight = static_cast<std::int8_t>(-weight);
    }
    check_s8(isa, staged(1, 64, 1, taps, 1, 1), weights, random_epilogue(random, OutputType::s32), random,
             extreme_byte);
  }
}

ISA_TEST(depthwise_nothing_to_do) {
  const DepthwiseKernels& kernels = kernel_table(isa).depthwise;
  GuardedBuffer<std::uint8_t> nothing(0);
  const std::size_t offset = 0;
  const std::int32_t bias = 0;
  const float scale = 1, float_bias = 0;
  const EpilogueS8 bytes{&bias, &scale, 0, 255, 0, OutputType::u8};
  const EpilogueF32 floats{&float_bias, 0, 1};
  GuardedBuffer<std::uint8_t> packed(kernels.packed_s8_bytes(1));
  const std::int8_t weight = 1;
  kernels.pack_s8(&weight, 1, packed.data());
  for (std::size_t rows : {0, 1}) {
    kernels.s8({nothing.data(), 1, &offset, packed.data(), 1, rows, 1 - rows, &bytes, nothing.data(), 64});
    kernels.f32({nothing.data(), 1, &offset, &scale, 1, rows, 1 - rows, &floats, nothing.data(), 64});
  }
}
