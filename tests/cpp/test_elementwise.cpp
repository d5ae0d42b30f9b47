#include <array>
#include <bit>
#include <cmath>
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
      job.rows = 1;
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

/// Ratios and an offset that are hard on shortcuts: sums that lie between two steps, or a rounding beside it;
/// a residue that nothing but the direction of a rounding shows; sums beyond s32.
struct HardSum {
  float ratio_a, ratio_b, fixed;
};

std::vector<HardSum> hard_sums(Random& random) {
  constexpr float kHalfAt97 = 172961 * 0x1p-25f;  // 97 of them are 0.5 + 2^-25
  std::vector<HardSum> sums{{kHalfAt97, 0x1p-149f, 0}, {0x1p-149f, kHalfAt97, 0}, {kHalfAt97, 0x1p-120f, 0},
                            {0x1p22f, 0x1p22f, 0},     {0x1p23f, 0x1p100f, 3},    {1, 1, -0x1p40f},
                            {0x1p-100f, 0x1p-149f, 0}, {0.5f, 0.5f, 0.5f}};
  for (int round = 0; round < (quick() ? 4 : 40); ++round) {
    const auto dyadic = [&] { return static_cast<float>(random.integer(1, 64)) / 32; };
    const auto beside = [&](float x) { return std::nextafter(x, static_cast<float>(random.integer(0, 9))); };
    const float a = dyadic(), b = dyadic(), fixed = static_cast<float>(random.integer(-99, 99)) / 4;
    sums.push_back({a, b, fixed});
    sums.push_back({beside(a), beside(b), fixed});
    sums.push_back({static_cast<float>(random.unit()), static_cast<float>(random.unit() * 4), fixed * 3.3f});
  }
  return sums;
}

ISA_TEST(elementwise_add_bytes_of_all_pairs) {
  Random random(7);
  std::vector<std::uint8_t> a(1 << 16), b(a), out(a), expected(a);
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<std::uint8_t>(i);
    b[i] = static_cast<std::uint8_t>(i >> 8);
  }
  const auto sign = [](int is_signed) { return static_cast<std::uint8_t>(is_signed != 0 ? 0x80 : 0); };
  AddBytesJob job{a.data(), b.data(), nullptr, 1, a.size(), 0, 0, 0, 0, 0, 0, 0, 0, 0};
  for (const HardSum& sum : hard_sums(random)) {
    job.ratio_a = sum.ratio_a;
    job.ratio_b = sum.ratio_b;
    job.fixed = sum.fixed;
    for (int signs = 0; signs < 8; ++signs) {
      job.sign_a = sign(signs & 1);
      job.sign_b = sign(signs & 2);
      job.sign_out = sign(signs & 4);
      const int least = signs & 4 ? -128 : 0;
      job.low = static_cast<float>(least + random.integer(0, 1) * random.integer(0, 99));
      job.high = static_cast<float>(least + 255 - random.integer(0, 1) * random.integer(0, 99));
      job.out = expected.data();
      kernels_of(Isa::scalar).add_bytes(job);
      job.out = out.data();
      kernels_of(isa).add_bytes(job);
      CHECK_SAME(std::span<const std::uint8_t>(out), std::span<const std::uint8_t>(expected),
                 "ratios " + std::to_string(sum.ratio_a) + " and " + std::to_string(sum.ratio_b) +
                     ", signs " + std::to_string(signs));
    }
  }
}

/// Rows that are apart: what lies between them is neither read nor written, as nothing beyond the last is.
ISA_TEST(elementwise_add_bytes_in_rows) {
  Random random(8);
  constexpr std::size_t kRows = 5, kGap = 3;
  for_each_count([&](std::size_t count, Edge edge) {
    const std::size_t stride = count + kGap, size = (kRows - 1) * stride + count;
    GuardedBuffer<std::uint8_t> a(size, edge), b(size, edge), expected(size, edge);
    copy_to(a, random_bytes(random, size));
    copy_to(b, random_bytes(random, size));
    for (std::size_t i = 0; i < size; ++i) expected[i] = a[i];
    AddBytesJob job{nullptr, nullptr, nullptr, 1, count, 0, 0, 0, 0, 0.6f, 0.7f, -20, 0, 255};
    for (std::size_t row = 0; row < kRows; ++row) {
      job.a = a.data() + row * stride;
      job.b = b.data() + row * stride;
      job.out = expected.data() + row * stride;
      kernels_of(Isa::scalar).add_bytes(job);
    }
    job.a = job.out = a.data();
    job.b = b.data();
    job.rows = kRows;
    job.stride = stride;
    kernels_of(isa).add_bytes(job);
    CHECK_SAME(a.view(), expected.view(), "rows");
  });
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
