#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gristmill/conv.h"
#include "harness.h"

using namespace gristmill;
using harness::Random;

namespace {

/// A convolution drawn at random, depthwise ones among them, and what its definition makes of it.
struct ConvCase {
  std::size_t batch, groups, in, out, kernel_h, kernel_w, height, width;
  ConvAttributes attributes;
  DType input;
  std::int32_t zero_point;
  std::vector<std::int8_t> w;
  std::vector<std::uint8_t> x;
  std::vector<std::int32_t> bias;
  std::vector<float> scale;

  explicit ConvCase(Random& random) {
    const auto pick = [&](std::int64_t low, std::int64_t high) {
      return static_cast<std::size_t>(random.integer(low, high));
    };
    const bool depthwise = pick(0, 3) == 0;
    batch = pick(1, 2), groups = depthwise ? pick(2, 9) : pick(0, 3) == 0 ? 2 : 1;
    in = depthwise ? 1 : pick(1, 24), out = depthwise ? pick(1, 2) : pick(1, 24);
    kernel_h = pick(1, 4), kernel_w = pick(0, 1) == 0 ? kernel_h : pick(1, 5);
    const auto small = [&](std::int64_t high) { return random.integer(1, high); };
    attributes = {small(2),     small(3),     small(2),
                  small(2),     small(3) - 1, small(3) - 1,
                  small(3) - 1, small(3) - 1, static_cast<std::int64_t>(groups)};
    height = pick(1, 12) + (kernel_h - 1) * attributes.dilation_h;
    width = pick(1, 20) + (kernel_w - 1) * attributes.dilation_w;
    input = pick(0, 1) == 0 ? DType::u8 : DType::s8;
    zero_point = static_cast<std::int32_t>(pick(0, 255)) - (input == DType::u8 ? 0 : 128);
    w.resize(groups * out * in * kernel_h * kernel_w);
    for (auto& v : w)
      v = static_cast<std::int8_t>(std::clamp<std::int64_t>(random.integer(-150, 150), -127, 127));
    x.resize(batch * groups * in * height * width);
    for (auto& v : x)
      v = static_cast<std::uint8_t>(std::clamp<std::int64_t>(random.integer(-64, 319), 0, 255));
    bias.resize(channels());
    for (auto& v : bias) v = static_cast<std::int32_t>(random.integer(-5000, 5000));
    scale.resize(channels());
    for (auto& v : scale)
      v = static_cast<float>((random.unit() + 0.2) / (60.0 * std::sqrt(double(in * kernel_h * kernel_w))));
  }

  std::size_t channels() const { return groups * out; }
  int value(std::size_t i) const { return input == DType::u8 ? x[i] : static_cast<std::int8_t>(x[i]); }

  std::vector<std::int32_t> sums(std::size_t rows, std::size_t columns) const {
    std::vector<std::int32_t> y;
    for (std::size_t n = 0; n < batch; ++n)
      for (std::size_t m = 0; m < channels(); ++m)
        for (std::size_t oh = 0; oh < rows; ++oh)
          for (std::size_t ow = 0; ow < columns; ++ow) y.push_back(sum_at(n, m, oh, ow));
    return y;
  }

  std::int32_t sum_at(std::size_t n, std::size_t m, std::size_t oh, std::size_t ow) const {
    std::int64_t sum = bias[m];
    for (std::size_t c = 0; c < in; ++c)
      for (std::size_t kh = 0; kh < kernel_h; ++kh)
        for (std::size_t kw = 0; kw < kernel_w; ++kw) {
          const auto at = [](std::size_t o, std::int64_t stride, std::size_t k, std::int64_t dilation,
                             std::int64_t pad) {
            return static_cast<std::int64_t>(o) * stride + static_cast<std::int64_t>(k) * dilation - pad;
          };
          const auto ih = at(oh, attributes.stride_h, kh, attributes.dilation_h, attributes.pad_top);
          const auto iw = at(ow, attributes.stride_w, kw, attributes.dilation_w, attributes.pad_left);
          if (ih < 0 || iw < 0 || ih >= std::int64_t(height) || iw >= std::int64_t(width)) continue;
          const std::size_t plane = n * groups * in + m / out * in + c;
          const int v = value((plane * height + std::size_t(ih)) * width + std::size_t(iw)) - zero_point;
          sum += std::int64_t{w[((m * in + c) * kernel_h + kh) * kernel_w + kw]} * v;
        }
    return static_cast<std::int32_t>(sum);
  }
};

}  // namespace

ISA_TEST(conv_s8_equals_the_definition) {
  Random random(17);
  Workspace workspace;
  for (int round = 0; round < (harness::quick() ? 60 : 600); ++round) {
    const ConvCase c(random);
    const PackedConv packed(c.w.data(), {c.channels(), c.in, c.kernel_h, c.kernel_w}, c.attributes, isa);
    const auto [rows, columns] = packed.output_size(c.height, c.width);
    const auto sums = c.sums(rows, columns);
    const ConvInput input{c.x.data(), c.input, c.batch, c.groups * c.in, c.height, c.width, c.zero_point};
    const std::string label = "round " + std::to_string(round);
    Epilogue epilogue;
    epilogue.bias = c.bias;
    std::vector<std::int32_t> y(sums.size());
    conv2d(packed, input, OutputStage(epilogue, c.channels(), false), nullptr, y.data(), 1 + round % 2,
           workspace);
    CHECK_SAME(std::span<const std::int32_t>(y), std::span<const std::int32_t>(sums), label);
    epilogue.output = DType::u8;
    epilogue.scale = c.scale;
    epilogue.zero_point = 100;
    std::vector<std::uint8_t> q(sums.size()), expected(sums.size());
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const float v = static_cast<float>(sums[i]) * c.scale[i / (rows * columns) % c.channels()];
      expected[i] = static_cast<std::uint8_t>(std::clamp(std::nearbyint(v), -100.0f, 155.0f) + 100.0f);
    }
    conv2d(packed, input, OutputStage(epilogue, c.channels(), false), nullptr, q.data(), 1, workspace);
    CHECK_SAME(std::span<const std::uint8_t>(q), std::span<const std::uint8_t>(expected),
               label + " in bytes");
  }
}
