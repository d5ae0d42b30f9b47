#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "guarded_buffer.h"
#include "harness.h"
#include "kernel_table.h"

using namespace gristmill;
using namespace harness;

namespace {

const ElementwiseKernels& kernels_of(Isa isa) { return kernel_table(isa).elementwise; }

constexpr std::array<std::size_t, 16> kCounts{0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1000};

/// body(count, edge) for every count at both edges of a page.
template <class Body>
void for_each_count(const Body& body) {
  for (std::size_t count : kCounts)
    for (Edge edge : {Edge::low, Edge::high}) body(count, edge);
}

template <class T>
void copy_to(GuardedBuffer<T>& buffer, const std::vector<T>& values) {
  for (std::size_t i = 0; i < buffer.size(); ++i) buffer[i] = values[i];
}

std::vector<std::uint8_t> random_bytes(Random& random, std::size_t count) {
  std::vector<std::uint8_t> bytes(count);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random.integer(0, 255));
  return bytes;
}

/// Any bits: denormals, infinities and NaN among them, and then small ordinary numbers.
std::vector<float> random_floats(Random& random, std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = i % 2 == 0 ? std::bit_cast<float>(static_cast<std::uint32_t>(random.next()))
                           : static_cast<float>(random.unit() * 40 - 20);
  }
  return values;
}

/// NaN results are all the same one: their bits are not part of the contract.
void unify_nan(std::span<float> values) {
  for (float& value : values)
    if (value != value) value = std::numeric_limits<float>::quiet_NaN();
}

}  // namespace

ISA_TEST(elementwise_lookup) {
  Random random(1);
  GuardedBuffer<std::uint8_t> table(256);
  copy_to(table, random_bytes(random, 256));
  for_each_count([&](std::size_t count, Edge edge) {
    GuardedBuffer<std::uint8_t> in(count, edge), out(count, edge);
    copy_to(in, random_bytes(random, count));
    std::vector<std::uint8_t> expected(count);
    for (std::size_t i = 0; i < count; ++i) expected[i] = table[in[i]];
    kernels_of(isa).lookup(table.data(), in.data(), out.data(), count);
    CHECK_SAME(out.view(), std::span<const std::uint8_t>(expected), "apart");
    kernels_of(isa).lookup(table.data(), in.data(), in.data(), count);
    CHECK_SAME(in.view(), std::span<const std::uint8_t>(expected), "in place");
  });
}

ISA_TEST(elementwise_add_bytes) {
  Random random(2);
  for (int round = 0; round < (quick() ? 5 : 100); ++round) {
    AddBytesJob job{};
    for (auto* sign : {&job.sign_a, &job.sign_b, &job.sign_out}) *sign = random.unit() < 0.5 ? 0x80 : 0;
    for (auto* ratio : {&job.ratio_a, &job.ratio_b}) *ratio = static_cast<float>(random.unit() + 0.001);
    job.fixed = static_cast<float>(random.integer(-255, 255));
    if (round % 4 == 0) job.ratio_a = job.ratio_b = 0.5f;  // ties
    if (round == 1) job.ratio_a = job.ratio_b = 0x1p100f;
    job.low = job.sign_out != 0 ? -128.0f : 0.0f;
    job.high = job.low + 255.0f;
    for_each_count([&](std::size_t count, Edge edge) {
      GuardedBuffer<std::uint8_t> a(count, edge), b(count, edge), out(count, edge), expected(count, edge);
      copy_to(a, random_bytes(random, count));
      copy_to(b, random_bytes(random, count));
      job.a = a.data();
      job.b = b.data();
      job.count = count;
      job.out = expected.data();
      kernels_of(Isa::scalar).add_bytes(job);
      job.out = out.data();
      kernels_of(isa).add_bytes(job);
      CHECK_SAME(out.view(), expected.view(), "apart");
      job.out = a.data();
      kernels_of(isa).add_bytes(job);
      CHECK_SAME(a.view(), expected.view(), "in place");
    });
  }
}

ISA_TEST(elementwise_add_f32) {
  Random random(3);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const auto& [low, high] : {std::pair{-kInfinity, kInfinity}, {0.0f, kInfinity}, {-1.5f, 6.0f}}) {
    for_each_count([&, low = low, high = high](std::size_t count, Edge edge) {
      GuardedBuffer<float> a(count, edge), b(count, edge), out(count, edge), expected(count, edge);
      copy_to(a, random_floats(random, count));
      copy_to(b, random_floats(random, count));
      kernels_of(Isa::scalar).add_f32(a.data(), b.data(), low, high, expected.data(), count);
      kernels_of(isa).add_f32(a.data(), b.data(), low, high, out.data(), count);
      unify_nan(out.span());
      unify_nan(expected.span());
      CHECK_SAME(out.view(), expected.view(), "sums");
    });
  }
}

ISA_TEST(elementwise_curves) {
  Random random(4);
  for (Curve curve : {Curve::leaky_relu, Curve::hardsigmoid, Curve::hardswish, Curve::sigmoid, Curve::silu}) {
    for_each_count([&](std::size_t count, Edge edge) {
      GuardedBuffer<float> in(count, edge), expected(count, edge);
      copy_to(in, random_floats(random, count));
      kernels_of(Isa::scalar).curve_f32(curve, 0.3f, in.data(), expected.data(), count);
      kernels_of(isa).curve_f32(curve, 0.3f, in.data(), in.data(), count);
      unify_nan(in.span());
      unify_nan(expected.span());
      CHECK_SAME(in.view(), expected.view(), "curve " + std::to_string(static_cast<int>(curve)));
    });
  }
}
