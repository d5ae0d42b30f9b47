#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gristmill/conv.h"
#include "gristmill/error.h"
#include "gristmill/workspace.h"
#include "guarded_buffer.h"
#include "harness.h"

using namespace gristmill;
using namespace harness;

namespace {

/// A convolution with everything that may vary.
struct Case {
  std::array<std::size_t, 4> weight_shape;
  ConvAttributes attributes;
  std::size_t batch, height, width;
  DType type;
  std::int32_t zero_point;

  std::size_t channels() const { return weight_shape[1] * static_cast<std::size_t>(attributes.groups); }
  std::size_t weight_count() const {
    return weight_shape[0] * weight_shape[1] * weight_shape[2] * weight_shape[3];
  }
  std::size_t input_count() const { return batch * channels() * height * width; }
};

Case random_case(Random& random, DType type) {
  const auto pick = [&](std::int64_t low, std::int64_t high) { return random.integer(low, high); };
  const auto size = [&](std::int64_t low, std::int64_t high) {
    return static_cast<std::size_t>(random.integer(low, high));
  };
  Case c{};
  ConvAttributes& a = c.attributes;
  a.groups = pick(0, 2) == 0 ? pick(1, 5) : 1;
  const bool pointwise = pick(0, 2) == 0;
  const std::size_t channels = pick(0, 3) == 0 ? 1 : pick(0, 1) == 0 ? 4 * size(1, 3) : size(1, 12);
  c.weight_shape = {static_cast<std::size_t>(a.groups) * size(1, 9), channels, pointwise ? 1 : size(1, 4),
                    pointwise ? 1 : size(1, 4)};
  a.stride_h = pick(1, 3);
  a.stride_w = pick(1, 3);
  a.dilation_h = pick(1, 3);
  a.dilation_w = pick(1, 3);
  if (pick(0, 1) == 0) {
    a.pad_top = pick(0, 3);
    a.pad_left = pick(0, 3);
    a.pad_bottom = pick(0, 3);
    a.pad_right = pick(0, 3);
  }
  c.batch = size(1, 3);
  c.height = static_cast<std::size_t>(a.dilation_h) * (c.weight_shape[2] - 1) + size(1, 14);
  c.width = static_cast<std::size_t>(a.dilation_w) * (c.weight_shape[3] - 1) + size(1, 14);
  c.type = type;
  c.zero_point =
      type == DType::f32 ? 0 : static_cast<std::int32_t>(type == DType::u8 ? pick(0, 255) : pick(-128, 127));
  return c;
}

/// A convolution whose planes are as wide as its output, once the stride has thinned them out, or a little
/// wider or narrower.
Case same_size_case(Random& random, DType type) {
  Case c = random_case(random, type);
  ConvAttributes& a = c.attributes;
  a.stride_h = a.stride_w = random.integer(1, 3);
  c.weight_shape[2] = c.weight_shape[3] = static_cast<std::size_t>(random.integer(1, 5));
  const auto covered = [](std::size_t kernel, std::int64_t dilation) {
    return dilation * (static_cast<std::int64_t>(kernel) - 1);
  };
  a.pad_top = covered(c.weight_shape[2], a.dilation_h) / 2;
  a.pad_bottom = covered(c.weight_shape[2], a.dilation_h) - a.pad_top;
  a.pad_left = covered(c.weight_shape[3], a.dilation_w) / 2;
  a.pad_right = covered(c.weight_shape[3], a.dilation_w) - a.pad_left + random.integer(0, 5) / 5;
  c.height = static_cast<std::size_t>(random.integer(1, 20));
  c.width = static_cast<std::size_t>(random.integer(1, 70));
  return c;
}

/// A convolution whose planes are the matrix that it multiplies.
Case plain_case(Random& random, DType type) {
  Case c = random_case(random, type);
  const auto groups = static_cast<std::size_t>(c.attributes.groups);
  c.attributes = {.groups = c.attributes.groups};
  c.weight_shape[0] = groups * static_cast<std::size_t>(random.integer(1, 20));
  c.weight_shape[2] = c.weight_shape[3] = 1;
  return c;
}

/// The definition, in the type of Sum.
template <class Sum, class X, class W>
std::vector<Sum> convolve(const Case& c, const X* x, const W* w, std::size_t rows, std::size_t columns) {
  const ConvAttributes& a = c.attributes;
  const std::size_t per_group = c.weight_shape[0] / static_cast<std::size_t>(a.groups);
  const auto element = [&](std::size_t n, std::size_t channel, std::int64_t ih, std::int64_t iw) -> Sum {
    if (ih < 0 || iw < 0 || ih >= static_cast<std::int64_t>(c.height) ||
        iw >= static_cast<std::int64_t>(c.width))
      return 0;
    const std::size_t row = (n * c.channels() + channel) * c.height + static_cast<std::size_t>(ih);
    return static_cast<Sum>(x[row * c.width + static_cast<std::size_t>(iw)]) - static_cast<Sum>(c.zero_point);
  };
  std::vector<Sum> out;
  for (std::size_t n = 0; n < c.batch; ++n)
    for (std::size_t m = 0; m < c.weight_shape[0]; ++m)
      for (std::size_t oh = 0; oh < rows; ++oh)
        for (std::size_t ow = 0; ow < columns; ++ow) {
          Sum sum = 0;
          const W* weight = w + m * c.weight_count() / c.weight_shape[0];
          for (std::size_t k = 0; k < c.weight_shape[1]; ++k)
            for (std::size_t kh = 0; kh < c.weight_shape[2]; ++kh)
              for (std::size_t kw = 0; kw < c.weight_shape[3]; ++kw)
                sum += static_cast<Sum>(*weight++) *
                       element(n, m / per_group * c.weight_shape[1] + k,
                               static_cast<std::int64_t>(oh) * a.stride_h +
                                   static_cast<std::int64_t>(kh) * a.dilation_h - a.pad_top,
                               static_cast<std::int64_t>(ow) * a.stride_w +
                                   static_cast<std::int64_t>(kw) * a.dilation_w - a.pad_left);
          out.push_back(sum);
        }
  return out;
}

std::string describe(const Case& c) {
  std::string text;
  for (std::size_t extent : c.weight_shape) text += std::to_string(extent) + "x";
  return text + " on " + std::to_string(c.batch) + "x" + std::to_string(c.height) + "x" +
         std::to_string(c.width);
}

/// The same weights dense, or in one of their sparse formats: all in turn.
PackedConv pack(const Case& c, std::span<const std::int8_t> w, int round, Isa isa) {
  if (round % 3 == 0) return {w.data(), c.weight_shape, c.attributes, isa};
  const std::size_t rows = c.weight_shape[0];
  return {CsrMatrix<std::int8_t>::from_dense(w, rows, w.size() / rows),
          round % 3 == 1 ? SparseKind::quads : SparseKind::blocks, c.weight_shape, c.attributes, isa};
}

PackedConv pack(const Case& c, std::span<const float> w, int round, Isa isa) {
  if (round % 3 == 0) return {w.data(), c.weight_shape, c.attributes, isa};
  const std::size_t rows = c.weight_shape[0];
  return {CsrMatrix<float>::from_dense(w, rows, w.size() / rows), SparseKind::singles, c.weight_shape,
          c.attributes, isa};
}

/// Of a hundred weights that many are not zero.
int kept_weights(int round) { return round % 3 == 0 ? 100 : 10 + round % 90; }

}  // namespace

ISA_TEST(conv_int8_reads_and_writes_only_its_arrays) {
  Random random(31);
  Workspace workspace;
  for (int round = 0; round < (quick() ? 60 : 1500); ++round) {
    const DType type = round % 2 == 0 ? DType::u8 : DType::s8;
    const Case c = round % 5 < 2 ? same_size_case(random, type) : random_case(random, type);
    const Edge edge = round % 4 < 2 ? Edge::high : Edge::low;
    GuardedBuffer<std::uint8_t> x(c.input_count(), edge);
    for (auto& byte : x.span()) byte = static_cast<std::uint8_t>(random.integer(0, 255));
    GuardedBuffer<std::int8_t> w(c.weight_count(), edge);
    for (auto& weight : w.span())
      if (random.integer(0, 99) < kept_weights(round))
        weight = static_cast<std::int8_t>(random.integer(-128 + round % 2, 127));
    const PackedConv packed = pack(c, w.view(), round, isa);
    const auto [rows, columns] = packed.output_size(c.height, c.width);
    const auto expected = c.type == DType::u8
                              ? convolve<std::int32_t>(c, x.data(), w.data(), rows, columns)
                              : convolve<std::int32_t>(c, reinterpret_cast<const std::int8_t*>(x.data()),
                                                       w.data(), rows, columns);
    GuardedBuffer<std::int32_t> out(expected.size(), edge);
    const OutputStage stage(Epilogue{}, c.weight_shape[0], false);
    conv2d(packed, {x.data(), c.type, c.batch, c.channels(), c.height, c.width, c.zero_point}, stage, nullptr,
           out.data(), 1 + round % 3, workspace);
    CHECK_SAME(out.view(), std::span<const std::int32_t>(expected), describe(c));
  }
}

/// Weights that are small but for a few of one sign whose sums 16 bits cannot hold, and activations that make
/// those count; 49 pixels end in a lane of their own.
ISA_TEST(conv_cuts_sums_that_would_saturate) {
  Random random(23);
  for (const bool with_minus_128 : {false, true}) {
    for (const std::size_t channels : {std::size_t{11}, std::size_t{40}, std::size_t{131}}) {
      Case c{};
      c.weight_shape = {2 * 21, channels, 1, 1};
      c.attributes.groups = 2;
      c.batch = 2, c.height = 7, c.width = 7, c.type = DType::u8, c.zero_point = 3;
      std::vector<std::int8_t> weights(c.weight_count());
      for (auto& w : weights) w = static_cast<std::int8_t>(random.integer(-60, 60));
      for (std::size_t row = 0; row < 4; ++row) {
        const std::size_t at = (10 * row + 1) * channels + 2 * row;
        weights[at] = weights[at + 1] = row % 2 == 0 ? 127 : -127;
        weights[at + 2 * channels] = 65, weights[at + 2 * channels + 1] = 64;
        if (with_minus_128) weights[at + 1] = -128;
      }
      std::vector<std::uint8_t> x(c.input_count());
      for (auto& v : x)
        v = static_cast<std::uint8_t>(random.integer(0, 2) == 0 ? random.integer(0, 255) : 255);
      const PackedConv packed(weights.data(), c.weight_shape, c.attributes, isa);
      if (isa == Isa::avx2 && channels > 11)
        CHECK(std::string(packed.variant_name()) == "s8, saturating sums cut");
      const ConvInput input{x.data(), c.type, c.batch, c.channels(), c.height, c.width, c.zero_point, 0};
      const OutputStage stage(Epilogue{}, c.weight_shape[0], false);
      std::vector<std::int32_t> out(c.batch * c.weight_shape[0] * 49);
      Workspace workspace;
      conv2d(packed, input, stage, nullptr, out.data(), 1, workspace);
      const auto expected = convolve<std::int64_t>(c, x.data(), weights.data(), 7, 7);
      for (std::size_t i = 0; i < out.size(); ++i) CHECK_EQ(std::int64_t{out[i]}, expected[i]);
    }
  }
}

ISA_TEST(conv_f32_reads_and_writes_only_its_arrays) {
  Random random(32);
  Workspace workspace;
  for (int round = 0; round < (quick() ? 40 : 700); ++round) {
    const auto any_case = round % 5 < 2 ? same_size_case : round % 5 < 4 ? random_case : plain_case;
    const Case c = any_case(random, DType::f32);
    const Edge edge = round % 2 == 0 ? Edge::high : Edge::low;
    const std::size_t slack = static_cast<std::size_t>(random.integer(0, 1) * random.integer(0, 30));
    GuardedBuffer<float> x(c.input_count() + slack, edge), w(c.weight_count(), edge);
    std::ranges::fill(x.span(), std::numeric_limits<float>::quiet_NaN());
    for (auto& value : x.span().first(c.input_count())) value = static_cast<float>(random.integer(-100, 100));
    for (auto& value : w.span())
      if (random.integer(0, 99) < kept_weights(round)) value = static_cast<float>(random.integer(-100, 100));
    const PackedConv packed = pack(c, w.view(), round, isa);
    const auto [rows, columns] = packed.output_size(c.height, c.width);
    const auto expected = convolve<float>(c, x.data(), w.data(), rows, columns);  // whole numbers: exact
    GuardedBuffer<float> out(expected.size(), edge);
    Epilogue epilogue;
    epilogue.output = DType::f32;
    const OutputStage stage(epilogue, c.weight_shape[0], true);
    conv2d(packed, {x.data(), c.type, c.batch, c.channels(), c.height, c.width, 0, slack}, stage, nullptr,
           out.data(), 1 + round % 3, workspace);
    for (float& value : out.span()) value += 0.0f;  // -0 is as good as 0
    CHECK_SAME(out.view(), std::span<const float>(expected), describe(c));
  }
}

/// Rows of whole lane blocks of the vector levels, or of many and a part, which slide where tap rows overlap.
ISA_TEST(conv_f32_rows_slide) {
  Random random(35);
  Workspace workspace;
  for (int round = 0; round < (quick() ? 60 : 900); ++round) {
    Case c = random_case(random, DType::f32);
    ConvAttributes& a = c.attributes;
    a.groups = random.integer(1, 2);
    c.weight_shape = {static_cast<std::size_t>(a.groups * random.integer(1, 9)),
                      static_cast<std::size_t>(random.integer(2, 5)),
                      static_cast<std::size_t>(random.integer(1, 7)),
                      static_cast<std::size_t>(random.integer(1, 7))};
    a.stride_w = random.integer(1, 3);
    c.height = static_cast<std::size_t>(a.dilation_h) * (c.weight_shape[2] - 1) + c.height % 14 + 1;
    const std::int64_t columns = round % 7 == 0 ? random.integer(129, 140) : 16 * random.integer(1, 3);
    const std::int64_t padded = (columns - 1) * a.stride_w + random.integer(0, a.stride_w - 1) + 1 +
                                a.dilation_w * (static_cast<std::int64_t>(c.weight_shape[3]) - 1);
    if (round % 4 == 0) a.pad_left = random.integer(0, padded - 1);
    const std::int64_t most = padded - a.pad_left;
    const std::int64_t width = round % 4 < 2 ? random.integer(1, most) : std::max<std::int64_t>(most - 3, 1);
    a.pad_right = most - width;
    c.width = static_cast<std::size_t>(width);
    const Edge edge = round % 2 == 0 ? Edge::high : Edge::low;
    GuardedBuffer<float> x(c.input_count(), edge), w(c.weight_count(), edge);
    for (auto& value : x.span()) value = static_cast<float>(random.integer(-100, 100));
    for (auto& value : w.span()) value = static_cast<float>(random.integer(-100, 100));
    const PackedConv packed(w.data(), c.weight_shape, a, isa);
    const auto [rows, columns_out] = packed.output_size(c.height, c.width);
    auto expected = convolve<float>(c, x.data(), w.data(), rows, columns_out);
    GuardedBuffer<float> out(expected.size(), edge), residual(expected.size(), edge);
    for (auto& value : residual.span()) value = static_cast<float>(random.integer(-100, 100));
    Epilogue epilogue;
    epilogue.output = DType::f32;
    const bool adds = round % 3 == 0;
    if (adds) epilogue.residual = ResidualAdd{};
    if (round % 3 == 1) epilogue.activation = {ActivationKind::leaky_relu, 0, 0, 0.5f};
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] =
          adds ? expected[i] + residual[i] : expected[i] * (round % 3 == 1 && expected[i] < 0 ? 0.5f : 1.0f);
    const OutputStage stage(epilogue, c.weight_shape[0], true);
    conv2d(packed, {x.data(), c.type, c.batch, c.channels(), c.height, c.width}, stage,
           adds ? residual.data() : nullptr, out.data(), 1 + round % 3, workspace);
    for (float& value : out.span()) value += 0.0f;  // -0 is as good as 0
    CHECK_SAME(out.view(), std::span<const float>(expected), describe(c));
  }
}

/// More image sizes in turn than plans are kept for.
ISA_TEST(conv_depthwise_weights_serve_any_image_size) {
  Random random(34);
  Workspace workspace;
  Case c{};
  c.weight_shape = {4, 1, 3, 3};
  c.attributes.groups = 2;
  c.attributes.pad_top = c.attributes.pad_left = c.attributes.pad_bottom = c.attributes.pad_right = 1;
  c.batch = 1, c.type = DType::u8, c.zero_point = 3;
  std::vector<std::int8_t> w(c.weight_count());
  for (auto& weight : w) weight = static_cast<std::int8_t>(random.integer(-128, 127));
  const PackedConv packed(w.data(), c.weight_shape, c.attributes, isa);
  for (std::size_t turn = 0; turn < 36; ++turn) {
    c.height = 5 + turn % 4;
    c.width = 5 + turn % 12;
    std::vector<std::uint8_t> x(c.input_count());
    for (auto& byte : x) byte = static_cast<std::uint8_t>(random.integer(0, 255));
    const auto expected = convolve<std::int32_t>(c, x.data(), w.data(), c.height, c.width);
    std::vector<std::int32_t> out(expected.size());
    const ConvInput input{x.data(), c.type, c.batch, c.channels(), c.height, c.width, c.zero_point};
    conv2d(packed, input, OutputStage(Epilogue{}, 4, false), nullptr, out.data(), 1, workspace);
    CHECK_SAME(std::span<const std::int32_t>(out), std::span<const std::int32_t>(expected), describe(c));
  }
}

ISA_TEST(conv_passes_stay_inside_their_arrays) {
  Random random(33);
  Workspace workspace;
  for (int round = 0; round < (quick() ? 20 : 200); ++round) {
    const Case c = random_case(random, DType::u8);
    const Edge edge = round % 2 == 0 ? Edge::high : Edge::low;
    const std::vector<std::uint8_t> x(c.input_count(), 200);
    const std::vector<std::int8_t> w(c.weight_count(), 3);
    const PackedConv packed = pack(c, std::span<const std::int8_t>(w), round, isa);
    const auto [rows, columns] = packed.output_size(c.height, c.width);
    const std::size_t count = c.batch * c.weight_shape[0] * rows * columns;
    GuardedBuffer<std::uint8_t> out(count, edge), residual(count, edge);
    for (auto& byte : residual.span()) byte = static_cast<std::uint8_t>(random.integer(0, 255));
    const float scale = 0.01f;
    Epilogue epilogue;
    epilogue.output = DType::u8;
    epilogue.scale = {&scale, 1};
    epilogue.output_scale = 0.1f;
    epilogue.activation.kind = ActivationKind::hardswish;
    epilogue.residual = ResidualAdd{DType::u8, {0.1f, 5}, {0.2f, 7}, {}};
    const OutputStage stage(epilogue, c.weight_shape[0], false);
    const ConvInput input{x.data(), c.type, c.batch, c.channels(), c.height, c.width, c.zero_point};
    conv2d(packed, input, stage, residual.data(), out.data(), 1, workspace);
    const std::vector<std::uint8_t> first(out.data(), out.data() + count);
    conv2d(packed, input, stage, residual.data(), out.data(), 3, workspace);
    CHECK_SAME(out.view(), std::span<const std::uint8_t>(first), describe(c));
    conv2d(pack(c, std::span<const std::int8_t>(w), round + 1, isa), input, stage, residual.data(),
           out.data(), 1, workspace);
    CHECK_SAME(out.view(), std::span<const std::uint8_t>(first), describe(c));
  }
}

TEST(conv_workspace_keeps_its_memory) {
  const std::vector<std::uint8_t> x(8 * 30 * 30, 1);
  const std::vector<std::int8_t> w(16 * 8 * 9, 1);
  ConvAttributes attributes;
  attributes.pad_top = attributes.pad_left = attributes.pad_bottom = attributes.pad_right = 1;
  const PackedConv packed(w.data(), {16, 8, 3, 3}, attributes, active_isa());
  const OutputStage stage(Epilogue{}, 16, false);
  std::vector<std::int32_t> out(16 * 30 * 30);
  Workspace workspace;
  const auto run = [&] {
    conv2d(packed, {x.data(), DType::u8, 1, 8, 30, 30}, stage, nullptr, out.data(), 1, workspace);
  };
  run();
  const std::size_t bytes = workspace.bytes();
  CHECK(bytes > 0);
  run();
  CHECK_EQ(workspace.bytes(), bytes);
  CHECK_EQ(out[0], 8 * 4);
  CHECK_EQ(out[31], 8 * 9);
  workspace.trim(0);
  CHECK_EQ(workspace.bytes(), std::size_t{0});
  run();
  CHECK_EQ(out[31], 8 * 9);
}
