#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "depthwise_plan.h"
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

/// Some planes of a geometry.
struct Planes {
  DepthwiseGeometry geometry;
  std::size_t count, multiplier;
  Edge edge;

  std::size_t in_plane() const { return geometry.height * geometry.width; }
  std::size_t positions() const { return geometry.out_rows * geometry.out_columns; }
  std::size_t taps() const { return geometry.kernel_rows * geometry.kernel_columns; }
  std::string label() const {
    const DepthwiseGeometry& g = geometry;
    return std::to_string(g.height) + "x" + std::to_string(g.width) + " kernel " +
           std::to_string(g.kernel_rows) + "x" + std::to_string(g.kernel_columns) + " stride " +
           std::to_string(g.stride_h) + "," + std::to_string(g.stride_w) + " dilation " +
           std::to_string(g.dilation_h) + "," + std::to_string(g.dilation_w) + " padding " +
           std::to_string(g.pad_top) + "," + std::to_string(g.pad_left) + " planes " + std::to_string(count) +
           "x" + std::to_string(multiplier);
  }
};

/// Rows and columns, kernel, stride and padding the same in both directions.
DepthwiseGeometry square(std::size_t size, std::size_t kernel, std::size_t stride, std::size_t pad) {
  const std::size_t out = (size + 2 * pad - kernel) / stride + 1;
  return {size, size, out, out, kernel, kernel, stride, stride, 1, 1, pad, pad};
}

/// product(tap, value of the source or `padding`) for all taps of an output pixel.
template <class T, class Product>
void for_each_tap(const Planes& planes, const T* plane, T padding, std::size_t position, Product product) {
  const DepthwiseGeometry& g = planes.geometry;
  const std::size_t y = position / g.out_columns, x = position % g.out_columns;
  for (std::size_t t = 0; t < planes.taps(); ++t) {
    const std::size_t row = y * g.stride_h + t / g.kernel_columns * g.dilation_h - g.pad_top;
    const std::size_t column = x * g.stride_w + t % g.kernel_columns * g.dilation_w - g.pad_left;
    product(t, row < g.height && column < g.width ? plane[row * g.width + column] : padding);
  }
}

DepthwiseGatherJob job_of(const Planes& planes, const DepthwisePlan& plan) {
  DepthwiseGatherJob job{};
  job.in_plane = planes.in_plane();
  job.planes = planes.count;
  job.multiplier = planes.multiplier;
  job.segments = plan.segments().data();
  job.segment_count = plan.segments().size();
  job.indices = plan.indices();
  job.shared = plan.shared();
  job.positions = planes.positions();
  return job;
}

/// Kernel rows with zeros behind them, in dwords of four s8 or two s16.
void pack(const std::vector<std::int8_t>& weights, std::size_t columns, std::size_t taps,
          GuardedBuffer<std::uint8_t>& packed) {
  const std::size_t bytes = 4 / taps, row_bytes = (columns + taps - 1) / taps * 4;
  std::memset(packed.data(), 0, packed.size());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const std::int16_t weight = weights[i];
    std::memcpy(packed.data() + i / columns * row_bytes + i % columns * bytes, &weight, bytes);
  }
}

/// Of use for planes that would be faster to stage too.
GatherKernel any_size(GatherKernel kernel) {
  kernel.most = kernel.most_strided = std::numeric_limits<std::size_t>::max();
  return kernel;
}

/// Planes of bytes, of which `readable` more may be read, for run(source, weights, epilogue, padding, out).
template <class Run>
void check_s8(const Planes& planes, std::size_t readable, std::uint8_t flip, Random& random, Run run) {
  const std::size_t outputs = planes.count * planes.multiplier;
  GuardedBuffer<std::uint8_t> source(planes.count * planes.in_plane() + readable, planes.edge);
  for (auto& byte : source.span()) byte = static_cast<std::uint8_t>(up_to(random, 255));
  std::vector<std::int8_t> weights(outputs * planes.taps());
  const std::int64_t most = std::int64_t{1} << random.integer(4, 7);
  for (auto& weight : weights) weight = static_cast<std::int8_t>(random.integer(-most, most - 1));
  const OutputType types[] = {OutputType::u8, OutputType::s8, OutputType::s32, OutputType::f32};
  const EpilogueCase first = random_epilogue(random, types[up_to(random, 3)]);
  std::vector<EpilogueCase> channels(outputs, first);
  std::vector<std::int32_t> bias;
  std::vector<float> scale;
  const float smaller = up_to(random, 1) == 0 ? 0.125f : 1.0f;
  for (EpilogueCase& channel : channels) {
    const EpilogueCase other = random_epilogue(random, first.type);
    bias.push_back(channel.bias = other.bias);
    scale.push_back(channel.scale = smaller * other.scale);
  }
  EpilogueS8 constants = first.constants();
  constants.small_scales = std::ranges::all_of(scale, [](float s) { return std::fabs(s) < 1.0f; });
  constants.bias = bias.data();
  constants.scale = first.type == OutputType::s32 ? nullptr : scale.data();
  const std::size_t bytes = element_bytes(first.type);
  GuardedBuffer<std::uint8_t> out(outputs * planes.positions() * bytes, planes.edge);
  const auto padding = static_cast<std::uint8_t>(up_to(random, 255));
  run(source.data(), weights, constants, padding, out.data());
  for (std::size_t i = 0; i < outputs * planes.positions(); ++i) {
    const std::size_t m = i / planes.positions();
    const std::uint8_t* plane = source.data() + m / planes.multiplier * planes.in_plane();
    const std::int8_t* w = weights.data() + m * planes.taps();
    std::int64_t sum = 0;
    for_each_tap(planes, plane, padding, i % planes.positions(),
                 [&](std::size_t t, std::uint8_t x) { sum += std::int64_t{x ^ flip} * w[t]; });
    std::uint32_t got = 0;
    std::memcpy(&got, &out[i * bytes], bytes);
    if (got == expected_output(channels[m], sum)) continue;
    harness::fail(__FILE__, __LINE__,
                  planes.label() + ": output " + std::to_string(i) + " is " + std::to_string(got) +
                      ", expected " + std::to_string(expected_output(channels[m], sum)));
  }
}

void check_gather_s8(const GatherKernel& kernel, const Planes& planes, Random& random) {
  const auto plan = DepthwisePlan::make(planes.geometry, any_size(kernel));
  if (!plan) return;
  const std::size_t columns = planes.geometry.kernel_columns, rows = planes.geometry.kernel_rows;
  const std::size_t row_vectors = (columns + kernel.taps - 1) / kernel.taps;
  const std::uint8_t flip = up_to(random, 1) == 0 ? 0 : 0x80;
  check_s8(planes, plan->overrun(), flip, random,
           [&](const std::uint8_t* source, const std::vector<std::int8_t>& weights,
               const EpilogueS8& epilogue, std::uint8_t padding, void* out) {
             GuardedBuffer<std::uint8_t> packed(weights.size() / columns * row_vectors * 4, planes.edge);
             pack(weights, columns, kernel.taps, packed);
             DepthwiseGatherJob job = job_of(planes, *plan);
             job.source = source;
             job.groups = rows * (kernel.taps == 4 ? row_vectors : 1);
             job.group_vectors = kernel.taps == 4 ? 1 : row_vectors;
             job.weights = packed.data();
             job.epilogue = &epilogue;
             job.out = out;
             job.padding = padding;
             job.flip = flip;
             kernel.run(job);
           });
}

/// Whole numbers, whose sums are exact, and a NaN, for run(source, weights, epilogue, out).
template <class Run>
void check_f32(const Planes& planes, std::size_t overrun, Random& random, Run run) {
  const std::size_t outputs = planes.count * planes.multiplier;
  GuardedBuffer<float> source(planes.count * planes.in_plane() + overrun, planes.edge);
  GuardedBuffer<float> weights(outputs * planes.taps(), planes.edge), bias(outputs, planes.edge);
  const auto fill = [&](GuardedBuffer<float>& values) {
    for (float& value : values.span()) value = static_cast<float>(random.integer(-100, 100));
  };
  fill(source), fill(weights), fill(bias);
  source[up_to(random, source.size() - 1)] = std::numeric_limits<float>::quiet_NaN();
  const float bound = up_to(random, 1) == 0 ? 1000.0f : INFINITY;
  const EpilogueF32 epilogue{bias.data(), -bound, bound};
  GuardedBuffer<float> out(outputs * planes.positions(), planes.edge);
  run(source.data(), weights.data(), epilogue, out.data());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t m = i / planes.positions();
    double sum = 0;
    for_each_tap(planes, source.data() + m / planes.multiplier * planes.in_plane(), 0.0f,
                 i % planes.positions(),
                 [&](std::size_t t, float x) { sum += double{x} * double{weights[m * planes.taps() + t]}; });
    sum += double{bias[m]};
    const double expected = sum < -bound ? -bound : sum > bound ? bound : sum;
    if (std::isnan(expected) ? std::isnan(out[i]) : double{out[i]} == expected) continue;
    harness::fail(__FILE__, __LINE__,
                  planes.label() + ": output " + std::to_string(i) + " is " + std::to_string(out[i]) +
                      ", expected " + std::to_string(expected));
  }
}

void check_gather_f32(const GatherKernel& kernel, const Planes& planes, Random& random) {
  const auto plan = DepthwisePlan::make(planes.geometry, any_size(kernel));
  if (!plan) return;
  check_f32(planes, plan->overrun(), random,
            [&](const float* source, const float* weights, const EpilogueF32& epilogue, float* out) {
              DepthwiseGatherJob job = job_of(planes, *plan);
              job.source = source;
              job.groups = planes.geometry.kernel_rows;
              job.group_vectors = planes.geometry.kernel_columns;
              job.weights = weights;
              job.epilogue = &epilogue;
              job.out = out;
              kernel.run(job);
            });
}

void check_both(Isa isa, Planes planes, Random& random) {
  const DepthwiseKernels& kernels = kernel_table(isa).depthwise;
  for (Edge edge : {Edge::low, Edge::high}) {
    planes.edge = edge;
    if (kernels.gather_s8.run != nullptr) check_gather_s8(kernels.gather_s8, planes, random);
    if (kernels.gather_f32.run != nullptr) check_gather_f32(kernels.gather_f32, planes, random);
  }
}

void check_strips_s8(const StripsKernelS8& kernel, const Planes& planes, Random& random) {
  const DepthwiseGeometry& g = planes.geometry;
  const std::size_t readable = up_to(random, 2) * up_to(random, 20);
  check_s8(planes, readable, 0, random,
           [&](const std::uint8_t* source, const std::vector<std::int8_t>& weights,
               const EpilogueS8& epilogue, std::uint8_t padding, void* out) {
             GuardedBuffer<std::uint8_t> packed(planes.count * kernel.packed_bytes, Edge::low);
             for (std::size_t m = 0; m < planes.count; ++m)
               kernel.pack(&weights[9 * m], packed.data() + m * kernel.packed_bytes);
             kernel.run({source, planes.count, g.height, g.width, g.stride_h, packed.data(), &epilogue, out,
                         padding, readable});
           });
}

void check_strips(Isa isa, std::size_t rows, std::size_t columns, std::size_t stride, std::size_t count,
                  Edge edge, Random& random) {
  const DepthwiseKernels& kernels = kernel_table(isa).depthwise;
  const std::size_t out_rows = (rows + stride - 1) / stride, out_columns = (columns + stride - 1) / stride;
  const Planes planes{
      {rows, columns, out_rows, out_columns, 3, 3, stride, stride, 1, 1, 1, 1}, count, 1, edge};
  if (kernels.strips_s8.run != nullptr) check_strips_s8(kernels.strips_s8, planes, random);
  if (kernels.strips_f32 == nullptr) return;
  check_f32(planes, 0, random,
            [&](const float* source, const float* weights, const EpilogueF32& epilogue, float* out) {
              kernels.strips_f32({source, count, rows, columns, stride, weights, &epilogue, out});
            });
}

}  // namespace

ISA_TEST(depthwise_gather_of_networks) {
  Random random(1);
  for (std::size_t size : {112, 75, 56, 28, 14, 7}) {
    if (harness::quick() && size > 28) continue;
    for (std::size_t stride : {1, 2}) {
      for (std::size_t kernel : {3, 5, 7})
        check_both(isa, {square(size, kernel, stride, kernel / 2), 2, 1, Edge::low}, random);
      check_both(isa, {square(size, 3, stride, 0), 2, 1, Edge::low}, random);
    }
  }
}

ISA_TEST(depthwise_gather_every_width) {
  Random random(2);
  for (std::size_t width = 1; width <= 150; width += harness::quick() ? 17 : 1) {
    for (std::size_t stride : {1, 2, 3}) {
      const std::size_t rows = 1 + up_to(random, 5), columns = (width + 1) / stride + (stride == 1 ? 0 : 1);
      check_both(isa,
                 {{rows * stride, width, rows, columns - (columns * stride > width + 2 ? 1 : 0), 3, 3, stride,
                   stride, 1, 1, 1, 1},
                  1 + up_to(random, 2),
                  1,
                  Edge::low},
                 random);
    }
  }
}

ISA_TEST(depthwise_gather_random_geometries) {
  Random random(3);
  const auto size = [&](std::size_t least, std::size_t more) { return least + up_to(random, more); };
  for (int i = 0; i < (harness::quick() ? 60 : 2000); ++i) {
    DepthwiseGeometry g{0,          0,          size(1, 20), size(1, 40), size(1, 5), size(1, 8),
                        size(1, 3), size(1, 3), size(1, 2),  size(1, 2),  0,          0};
    g.pad_top = up_to(random, 4);
    g.pad_left = up_to(random, 4);
    const std::size_t padded_height = (g.out_rows - 1) * g.stride_h + (g.kernel_rows - 1) * g.dilation_h + 1;
    const std::size_t padded_width =
        (g.out_columns - 1) * g.stride_w + (g.kernel_columns - 1) * g.dilation_w + 1;
    // What lies beyond is padding below and on the right.
    g.height = size(1, padded_height + 2);
    g.width = size(1, padded_width + 2);
    check_both(isa, {g, size(1, 2), size(1, 2), Edge::low}, random);
  }
}

/// Planes that end at guard pages, on both sides of every number of vectors.
ISA_TEST(depthwise_strips_of_every_size) {
  Random random(4);
  for (std::size_t columns = 1; columns <= 70; ++columns) {
    for (std::size_t rows = 1; rows <= 20; rows += harness::quick() && rows >= 4 ? 4 : 1) {
      for (std::size_t stride : {1, 2})
        check_strips(isa, rows, columns, stride, 1 + up_to(random, 2),
                     up_to(random, 1) == 0 ? Edge::low : Edge::high, random);
    }
  }
}

/// Vectors that reach over some planes.
ISA_TEST(depthwise_strips_of_tiny_planes) {
  Random random(6);
  for (std::size_t size = 0; size < 16; ++size) {
    for (std::size_t planes = 1; planes <= 18; ++planes) {
      for (std::size_t stride : {1, 2})
        for (Edge edge : {Edge::low, Edge::high})
          check_strips(isa, 1 + size / 4, 1 + size % 4, stride, planes, edge, random);
    }
  }
}

/// The greatest and the least sum that weights can have, in the middle of a plane of 3 x 3.
ISA_TEST(depthwise_strips_of_extremes) {
  const StripsKernelS8& kernel = kernel_table(isa).depthwise.strips_s8;
  if (kernel.run == nullptr) return;
  Random random(7);
  for (int i = 0; i < (harness::quick() ? 1000 : 30000); ++i) {
    const std::int64_t least = random.integer(-128, 0), most = random.integer(0, 127);
    std::vector<std::int8_t> weights(9);
    for (auto& weight : weights) weight = static_cast<std::int8_t>(random.integer(least, most));
    GuardedBuffer<std::uint8_t> packed(kernel.packed_bytes), source(9);
    kernel.pack(weights.data(), packed.data());
    for (const bool greatest : {false, true}) {
      std::int32_t expected = 0, bias = 0, out[9];
      for (std::size_t t = 0; t < 9; ++t) {
        source[t] = (weights[t] > 0) == greatest ? 255 : 0;
        expected += source[t] * weights[t];
      }
      const EpilogueS8 epilogue{&bias, nullptr, 0, 0, 0, OutputType::s32};
      kernel.run({source.data(), 1, 3, 3, 1, packed.data(), &epilogue, out, 0, 0});
      if (out[4] != expected)
        harness::fail(__FILE__, __LINE__, std::to_string(out[4]) + " is not " + std::to_string(expected));
    }
  }
}

/// Sums that round: how planes are handed out to threads makes no difference.
ISA_TEST(depthwise_strips_of_planes_one_by_one) {
  Random random(5);
  const auto strips = kernel_table(isa).depthwise.strips_f32;
  if (strips == nullptr) return;
  constexpr std::size_t kPlanes = 3;
  for (std::size_t columns : {3, 7, 14, 19}) {
    for (std::size_t rows : {3, 7, 9, 14}) {
      for (std::size_t stride : {1, 2}) {
        const std::size_t in_plane = rows * columns;
        const std::size_t out_plane = (rows + stride - 1) / stride * ((columns + stride - 1) / stride);
        std::vector<float> source(kPlanes * in_plane), weights(kPlanes * 9), bias(kPlanes);
        for (auto* values : {&source, &weights, &bias})
          for (float& value : *values) value = static_cast<float>(random.integer(-1000, 1000)) / 700.0f;
        std::vector<float> together(kPlanes * out_plane), apart(kPlanes * out_plane);
        const EpilogueF32 epilogue{bias.data(), -INFINITY, INFINITY};
        strips({source.data(), kPlanes, rows, columns, stride, weights.data(), &epilogue, together.data()});
        for (std::size_t m = 0; m < kPlanes; ++m) {
          const EpilogueF32 own{&bias[m], -INFINITY, INFINITY};
          strips({&source[m * in_plane], 1, rows, columns, stride, &weights[9 * m], &own,
                  &apart[m * out_plane]});
        }
        CHECK(together == apart);
      }
    }
  }
}

/// Fast kernels are of use only where plans exist: for what networks have, and the reference that tests
/// compare with says nothing of that.
ISA_TEST(depthwise_plans_exist_for_networks) {
  const DepthwiseKernels& kernels = kernel_table(isa).depthwise;
  for (std::size_t size : {224, 112, 75, 56, 38, 28, 19, 14, 7, 4}) {
    for (std::size_t stride : {1, 2}) {
      for (std::size_t kernel : {3, 5}) {
        const DepthwiseGeometry geometry = square(size, kernel, stride, kernel / 2);
        const std::size_t most = stride == 1 ? kernels.gather_s8.most : kernels.gather_s8.most_strided;
        if (kernels.gather_s8.run != nullptr && geometry.out_rows * geometry.out_columns <= most)
          CHECK(DepthwisePlan::make(geometry, kernels.gather_s8) != nullptr);
        if (kernels.gather_f32.run != nullptr)
          CHECK(DepthwisePlan::make(geometry, kernels.gather_f32) != nullptr);
      }
    }
  }
  if (kernels.gather_s8.run == nullptr) return;
  CHECK(DepthwisePlan::make(square(400, 3, 99, 1), kernels.gather_s8) == nullptr);
}
