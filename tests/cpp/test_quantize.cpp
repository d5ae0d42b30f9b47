#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "affine_table.h"
#include "guarded_buffer.h"
#include "harness.h"
#include "kernel_table.h"

using namespace gristmill;
using harness::Edge;
using harness::GuardedBuffer;
using harness::Random;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

float from_bits(std::uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

Affine affine(float scale, std::int32_t zero_point, QuantType type) {
  AffineTable table({{&scale, 1}, {&zero_point, 1}, {}}, type, 1);
  table.prepare_division();
  return table.channel(0);
}

QuantType random_type(Random& random) { return random.integer(0, 1) != 0 ? QuantType::u8 : QuantType::s8; }

Affine random_affine(Random& random) {
  const QuantType type = random_type(random);
  const auto zero_point = static_cast<std::int32_t>(random.integer(quant_min(type), quant_max(type)));
  return affine(static_cast<float>(std::exp2(random.unit() * 12 - 9)), zero_point, type);
}

/// Reals that fall on all sides of every rounding decision, and among them any bit pattern.
void fill(Random& random, std::span<float> values) {
  const float special[] = {0.0f, -0.0f, kInf, -kInf, kNan, 3.4e38f, -3.4e38f, 1e-45f, 0.5f, 1.5f, -2.5f};
  for (float& value : values) switch (random.integer(0, 5)) {
      case 0:
        value = from_bits(static_cast<std::uint32_t>(random.next() >> 32));
        break;
      case 1:
        value = special[random.integer(0, 10)];
        break;
      case 2:
        value = static_cast<float>(random.integer(-600, 600)) * 0.5f;
        break;
      default:
        value = static_cast<float>((random.unit() - 0.5) * 500);
    }
}

void fill(Random& random, std::span<std::int32_t> values) {
  for (std::int32_t& value : values)
    value = random.integer(0, 2) == 0 ? static_cast<std::int32_t>(random.next() >> 32)
                                      : static_cast<std::int32_t>(random.integer(-2000, 2000));
}

void fill(Random& random, std::span<std::uint8_t> values) {
  for (std::uint8_t& value : values) value = static_cast<std::uint8_t>(random.integer(0, 255));
}

template <class In, class Out>
using RunSlot = void (*QuantizeKernels::*)(const In*, Out*, std::size_t, const Affine&, bool);
template <class In, class Out>
using LanesSlot = void (*QuantizeKernels::*)(const In*, Out*, std::size_t, const AffineLanes&, bool);

/// Calls body(length, edge, slack) for some lengths, at both edges and misaligned.
template <class Body>
void for_each_place(std::span<const std::size_t> lengths, const Body& body) {
  for (std::size_t n : lengths)
    for (Edge edge : {Edge::low, Edge::high})
      for (std::size_t slack : {0, 1, 5}) body(n, edge, slack);
}

/// Lengths around every group size.
template <class Body>
void for_each_shape(const Body& body) {
  const std::size_t step = harness::quick() ? 7 : 1;
  std::vector<std::size_t> lengths;
  for (std::size_t n = 0; n <= 133; n += n < 18 ? 1 : step) lengths.push_back(n);
  for_each_place(lengths, body);
}

/// Runs one call of a slot on guarded buffers against the scalar kernel.
template <class In, class Out, class Slot, class Map>
void check_call(Isa isa, Slot slot, const Map& map, std::size_t n, Edge edge, std::size_t slack,
                Random& random) {
  GuardedBuffer<In> in(n, edge, slack);
  fill(random, in.span());
  GuardedBuffer<Out> expected(n), actual(n, edge, slack);
  (kernel_table(Isa::scalar).quantize.*slot)(in.data(), expected.data(), n, map, false);
  for (bool stream : {false, true}) {
    (kernel_table(isa).quantize.*slot)(in.data(), actual.data(), n, map, stream);
    CHECK_SAME(actual.view(), expected.view(), "n = " + std::to_string(n) + (stream ? ", streamed" : ""));
  }
}

template <class In, class Out>
void check_run(Isa isa, RunSlot<In, Out> slot) {
  Random random(1);
  for_each_shape([&](std::size_t n, Edge edge, std::size_t slack) {
    check_call<In, Out>(isa, slot, random_affine(random), n, edge, slack, random);
  });
}

template <class In, class Out>
void check_lanes(Isa isa, LanesSlot<In, Out> slot) {
  Random random(2);
  for (std::size_t period : {64u, 67u, 111u, 128u}) {
    const std::size_t count = period + kLaneOverrun;
    GuardedBuffer<float> scale(count), steps(count), offset(count);
    GuardedBuffer<std::int32_t> zero_point(count);
    for (std::size_t i = 0; i < count; ++i) {
      const Affine map = i < period ? random_affine(random) : Affine{};
      scale[i] = i < period ? map.scale : scale[i - period];
      steps[i] = i < period ? map.steps : steps[i - period];
      offset[i] = i < period ? map.offset : offset[i - period];
      zero_point[i] = i < period ? map.zero_point : zero_point[i - period];
    }
    const auto check = [&](std::size_t n, Edge edge, std::size_t slack) {
      const std::size_t first =
          static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(period) - 1));
      const std::uint8_t flip = random_type(random) == QuantType::s8 ? 0x80 : 0;
      const AffineLanes map{scale.data(), steps.data(), offset.data(), zero_point.data(),
                            period,       first,        flip};
      check_call<In, Out>(isa, slot, map, n, edge, slack, random);
    };
    for_each_shape(check);
    const std::size_t periods[] = {4 * period - 1, 4 * period, 5 * period + 3, 9 * period + 40};
    for_each_place(periods, check);
  }
}

/// The definition, written out once more: x / s, ties to even, saturated, NaN to the least.
std::uint8_t quantize_by_definition(float x, float scale, std::int32_t zero_point, QuantType type) {
  const float quotient = x / scale;
  double integer =
      std::isnan(quotient) ? -HUGE_VAL : std::nearbyint(static_cast<double>(quotient)) + zero_point;
  integer = std::fmin(std::fmax(integer, quant_min(type)), quant_max(type));
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(integer));
}

void check_quantize(Isa isa, std::span<const float> x, float scale, std::int32_t zero_point, QuantType type) {
  std::vector<std::uint8_t> actual(x.size()), expected(x.size());
  const Affine map = affine(scale, zero_point, type);
  kernel_table(isa).quantize.quantize_run(x.data(), actual.data(), x.size(), map, false);
  for (std::size_t i = 0; i < x.size(); ++i)
    expected[i] = quantize_by_definition(x[i], scale, zero_point, type);
  CHECK_SAME(std::span<const std::uint8_t>(actual), std::span<const std::uint8_t>(expected),
             "scale " + std::to_string(scale) + ", zero point " + std::to_string(zero_point));
}

/// Scales over the whole range of f32, with the ends of the fast range and denormals among them.
std::vector<float> awkward_scales(Random& random, std::size_t count) {
  std::vector<float> scales{1.0f,          0.5f,   1.0f / 3, 0.1f,   1.0f / 255, 0x1p-111f, 0x1.000002p-112f,
                            0x1p-112f,     1e-38f, 1e-40f,   1e-45f, 0x1p-126f,  0x1p127f,  3.4e38f,
                            0x1.fffffep0f, 7.0f};
  while (scales.size() < count) {
    const double exponent = random.integer(0, 1) != 0 ? random.unit() * 276 - 149 : random.unit() * 20 - 10;
    scales.push_back(static_cast<float>(std::exp2(exponent)));
  }
  return scales;
}

}  // namespace

ISA_TEST(quantize_run_equals_scalar) { check_run(isa, &QuantizeKernels::quantize_run); }
ISA_TEST(quantize_lanes_equals_scalar) { check_lanes(isa, &QuantizeKernels::quantize_lanes); }
ISA_TEST(dequantize_run_equals_scalar) { check_run(isa, &QuantizeKernels::dequantize_run); }
ISA_TEST(dequantize_lanes_equals_scalar) { check_lanes(isa, &QuantizeKernels::dequantize_lanes); }
ISA_TEST(requantize_run_equals_scalar) { check_run(isa, &QuantizeKernels::requantize_run); }
ISA_TEST(requantize_lanes_equals_scalar) { check_lanes(isa, &QuantizeKernels::requantize_lanes); }
ISA_TEST(rescale_run_equals_scalar) { check_run(isa, &QuantizeKernels::rescale_run); }
ISA_TEST(rescale_lanes_equals_scalar) { check_lanes(isa, &QuantizeKernels::rescale_lanes); }

ISA_TEST(quantize_is_exact_around_every_tie) {
  Random random(3);
  const std::vector<float> scales = awkward_scales(random, harness::quick() ? 20 : 400);
  for (float scale : scales) {
    std::vector<float> x;
    for (int k = -257; k <= 256; ++k) {
      const float tie = static_cast<float>((k + 0.5) * static_cast<double>(scale));
      float below = tie, above = tie;
      for (int ulps = 0; ulps < 6; ++ulps) {
        x.push_back(below);
        x.push_back(above);
        below = std::nextafterf(below, -kInf);
        above = std::nextafterf(above, kInf);
      }
      x.push_back(
          static_cast<float>((k + 0.5) * static_cast<double>(scale) * (1 + (random.unit() - 0.5) * 1e-4)));
    }
    for (QuantType type : {QuantType::u8, QuantType::s8})
      for (std::int32_t zero_point : {quant_min(type), quant_max(type), 0, 77})
        check_quantize(isa, x, scale, zero_point, type);
  }
}

ISA_TEST(quantize_is_exact_on_random_bits) {
  Random random(4);
  const std::size_t block = 4096, blocks = harness::quick() ? 10 : 10'000'000 / block + 1;
  std::vector<float> x(block);
  const std::vector<float> scales = awkward_scales(random, 40);
  for (std::size_t b = 0; b < blocks; ++b) {
    const float scale = scales[b % scales.size()];
    for (std::size_t i = 0; i < block; ++i)
      x[i] = b % 3 == 0 ? from_bits(static_cast<std::uint32_t>(random.next() >> 32))
                        : static_cast<float>((random.unit() - 0.5) * 600 * static_cast<double>(scale));
    const QuantType type = random_type(random);
    check_quantize(isa, x, scale, static_cast<std::int32_t>(random.integer(quant_min(type), quant_max(type))),
                   type);
  }
}

ISA_TEST(other_conversions_equal_scalar_on_random_bits) {
  Random random(5);
  const std::size_t block = 4096, blocks = harness::quick() ? 10 : 10'000'000 / block + 1;
  GuardedBuffer<std::int32_t> acc(block);
  GuardedBuffer<std::uint8_t> q(block), q_expected(block);
  GuardedBuffer<float> y(block), y_expected(block);
  const std::vector<float> scales = awkward_scales(random, 40);
  const QuantizeKernels &level = kernel_table(isa).quantize, &scalar = kernel_table(Isa::scalar).quantize;
  for (std::size_t b = 0; b < blocks; ++b) {
    fill(random, acc.span());
    Affine map = random_affine(random);
    if (b % 2 == 0) map.scale = scales[b / 2 % scales.size()];
    level.requantize_run(acc.data(), q.data(), block, map, false);
    scalar.requantize_run(acc.data(), q_expected.data(), block, map, false);
    CHECK_SAME(q.view(), q_expected.view(), "requantize");
    level.rescale_run(acc.data(), y.data(), block, map, false);
    scalar.rescale_run(acc.data(), y_expected.data(), block, map, false);
    CHECK_SAME(y.view(), y_expected.view(), "rescale");
    level.dequantize_run(q.data(), y.data(), block, map, false);
    scalar.dequantize_run(q.data(), y_expected.data(), block, map, false);
    CHECK_SAME(y.view(), y_expected.view(), "dequantize");
  }
}

namespace {

void check_extreme(float actual, float expected) {
  CHECK(std::isnan(expected) ? std::isnan(actual) : actual == expected);
}

/// Values of a kind that both have and lack NaN and infinities.
void fill_for_extremes(Random& random, std::span<float> x) {
  const bool wild = random.integer(0, 1) != 0;
  for (float& value : x) value = static_cast<float>(random.unit() - 0.5);
  if (!wild || x.empty()) return;
  const std::int64_t last = static_cast<std::int64_t>(x.size()) - 1;
  const float strange[] = {kNan, kInf, -kInf, from_bits(0x7F800001), -0.0f};
  x[static_cast<std::size_t>(random.integer(0, last))] = strange[random.integer(0, 4)];
}

}  // namespace

ISA_TEST(min_max_run_equals_scalar) {
  Random random(6);
  for_each_shape([&](std::size_t n, Edge edge, std::size_t slack) {
    GuardedBuffer<float> x(n, edge, slack);
    fill_for_extremes(random, x.span());
    for (float start : {kInf, 0.25f, kNan}) {
      float low = start, high = -start, low_expected = start, high_expected = -start;
      kernel_table(isa).quantize.min_max_run(x.data(), n, &low, &high);
      kernel_table(Isa::scalar).quantize.min_max_run(x.data(), n, &low_expected, &high_expected);
      check_extreme(low, low_expected);
      check_extreme(high, high_expected);
    }
  });
}

ISA_TEST(min_max_lanes_equals_scalar) {
  Random random(7);
  for_each_shape([&](std::size_t n, Edge edge, std::size_t slack) {
    GuardedBuffer<float> x(n, edge, slack), low(n, edge, slack), high(n, edge, slack);
    std::vector<float> low_expected(n, kInf), high_expected(n, -kInf);
    std::copy(low_expected.begin(), low_expected.end(), low.data());
    std::copy(high_expected.begin(), high_expected.end(), high.data());
    for (int round = 0; round < 3; ++round) {
      fill_for_extremes(random, x.span());
      kernel_table(isa).quantize.min_max_lanes(x.data(), n, low.data(), high.data());
      kernel_table(Isa::scalar)
          .quantize.min_max_lanes(x.data(), n, low_expected.data(), high_expected.data());
    }
    for (std::size_t i = 0; i < n; ++i) {
      check_extreme(low[i], low_expected[i]);
      check_extreme(high[i], high_expected[i]);
    }
  });
}

TEST(min_max_scalar_spreads_nan) {
  const float x[] = {1.0f, kNan, -3.0f};
  float low = kInf, high = -kInf;
  kernel_table(Isa::scalar).quantize.min_max_run(x, 3, &low, &high);
  CHECK(std::isnan(low) && std::isnan(high));
  low = kInf, high = -kInf;
  kernel_table(Isa::scalar).quantize.min_max_run(x + 2, 1, &low, &high);
  CHECK(low == -3.0f && high == -3.0f);
}
