#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "gristmill/error.h"
#include "gristmill/quantize.h"
#include "guarded_buffer.h"
#include "harness.h"

using namespace gristmill;
using harness::Edge;
using harness::GuardedBuffer;
using harness::Random;

namespace {

using Shape = std::vector<std::size_t>;

/// Makes the level active while it lives.
class ActiveIsa {
 public:
  explicit ActiveIsa(Isa isa) : before_(active_isa()) { set_active_isa(isa); }
  ~ActiveIsa() { set_active_isa(before_); }
  ActiveIsa(const ActiveIsa&) = delete;
  ActiveIsa& operator=(const ActiveIsa&) = delete;

 private:
  Isa before_;
};

/// How one array lies in memory.
struct Layout {
  Shape order;                        // dimensions from the outermost to the innermost
  std::vector<std::size_t> gap;       // elements of each dimension between two of the array, 1 without a gap
  std::vector<bool> down, broadcast;  // by dimension
  std::size_t offset;                 // bytes that misalign it

  static Layout random(Random& random, std::size_t rank, bool may_broadcast, std::size_t item) {
    const auto one_in = [&](int n) { return random.integer(1, n) == 1; };
    Layout layout{{}, {}, {}, {}, one_in(4) ? static_cast<std::size_t>(random.integer(0, 3)) % item : 0};
    for (std::size_t d = 0; d < rank; ++d) {
      layout.order.insert(layout.order.begin() + (one_in(2) ? random.integer(0, static_cast<std::int64_t>(d))
                                                            : static_cast<std::int64_t>(d)),
                          d);
      layout.gap.push_back(one_in(4) ? 2 : 1);
      layout.down.push_back(one_in(4));
      layout.broadcast.push_back(may_broadcast && one_in(6));
    }
    return layout;
  }
};

/// An array in a buffer that ends at inaccessible pages.
template <class T>
struct Placed {
  std::vector<std::ptrdiff_t> strides;
  std::size_t start = 0, bytes;
  GuardedBuffer<std::byte> buffer;

  Placed(const Shape& shape, const Layout& layout, Edge edge)
      : strides(shape.size()), bytes(place(shape, layout)), buffer(bytes, edge) {
    std::fill_n(buffer.data(), bytes, std::byte{0xA5});
  }

  ArrayView<T> view(const Shape& shape) {
    return {reinterpret_cast<T*>(buffer.data() + start), shape, strides};
  }
  ArrayView<const T> const_view(const Shape& shape) {
    return {reinterpret_cast<const T*>(buffer.data() + start), shape, strides};
  }
  std::byte* at(const Shape& index) {
    std::ptrdiff_t offset = static_cast<std::ptrdiff_t>(start);
    for (std::size_t d = 0; d < index.size(); ++d)
      offset += static_cast<std::ptrdiff_t>(index[d]) * strides[d];
    return buffer.data() + offset;
  }
  T get(const Shape& index) {
    T value;
    __builtin_memcpy(&value, at(index), sizeof(T));
    return value;
  }
  void set(const Shape& index, T value) { __builtin_memcpy(at(index), &value, sizeof(T)); }

 private:
  /// Sets strides and start; returns the bytes that the array spans, with the offset.
  std::size_t place(const Shape& shape, const Layout& layout) {
    std::size_t step = sizeof(T), last = layout.offset;
    start = layout.offset;
    for (std::size_t i = shape.size(); i-- > 0;) {
      const std::size_t d = layout.order[i];
      if (layout.broadcast[d]) continue;
      const std::size_t stride = step * layout.gap[d],
                        span = stride * (std::max<std::size_t>(shape[d], 1) - 1);
      strides[d] =
          layout.down[d] ? -static_cast<std::ptrdiff_t>(stride) : static_cast<std::ptrdiff_t>(stride);
      if (layout.down[d]) start += span;
      last += span;
      step = stride * std::max<std::size_t>(shape[d], 1);
    }
    return last + sizeof(T);
  }
};

template <class Body>
void for_each_index(const Shape& shape, const Body& body) {
  if (std::ranges::find(shape, std::size_t{0}) != shape.end()) return;
  Shape index(shape.size());
  for (;;) {
    body(index);
    std::size_t d = shape.size();
    while (d > 0 && ++index[d - 1] == shape[d - 1]) index[--d] = 0;
    if (d == 0) return;
  }
}

/// Shapes of up to four dimensions: small, with an extent of 0 or 1 now and then, or one long dimension.
Shape random_shape(Random& random) {
  Shape shape(static_cast<std::size_t>(random.integer(0, 4)));
  for (std::size_t& extent : shape) extent = static_cast<std::size_t>(random.integer(1, 6));
  if (shape.empty()) return shape;
  std::size_t& one =
      shape[static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(shape.size()) - 1))];
  const std::int64_t kind = random.integer(0, 9);
  if (kind == 0) one = 0;
  if (kind >= 6) one = static_cast<std::size_t>(random.integer(30, 400));
  return shape;
}

/// A shape and maps for it.
struct Case {
  Shape shape;
  std::optional<std::size_t> axis;
  std::vector<float> scale;
  std::vector<std::int32_t> zero_point;
  QuantType type;

  explicit Case(Random& random) : shape(random_shape(random)) {
    type = random.integer(0, 1) == 0 ? QuantType::u8 : QuantType::s8;
    if (!shape.empty() && random.integer(0, 2) > 0)
      axis = static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(shape.size()) - 1));
    for (std::size_t c = 0; c < (axis ? shape[*axis] : 1); ++c) {
      scale.push_back(static_cast<float>(0.05 + random.unit()));
      zero_point.push_back(static_cast<std::int32_t>(random.integer(quant_min(type), quant_max(type))));
    }
  }
  QuantParams params() const { return {scale, zero_point, axis}; }
  std::size_t channel(const Shape& index) const { return axis ? index[*axis] : 0; }
  std::string name(int threads) const {
    std::ostringstream text;
    text << "shape";
    for (std::size_t extent : shape) text << ' ' << extent;
    text << ", axis ";
    if (axis)
      text << *axis;
    else
      text << "none";
    text << ", threads " << threads;
    return text.str();
  }
};

/// The definition of quantization, in double precision after the one rounded quotient or product.
std::uint8_t to_byte(float real, std::int32_t zero_point, QuantType type) {
  double integer = std::isnan(real) ? -HUGE_VAL : std::nearbyint(static_cast<double>(real)) + zero_point;
  integer = std::fmin(std::fmax(integer, quant_min(type)), quant_max(type));
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(integer));
}

std::int32_t to_integer(std::uint8_t byte, QuantType type) {
  return type == QuantType::u8 ? byte : static_cast<std::int8_t>(byte);
}

void draw(Random& random, float& value) { value = static_cast<float>((random.unit() - 0.5) * 400); }
void draw(Random& random, std::uint8_t& value) { value = static_cast<std::uint8_t>(random.integer(0, 255)); }
void draw(Random& random, std::int32_t& value) {
  value = static_cast<std::int32_t>(random.integer(-999, 999));
}

/// Runs convert(in, params, type, out, threads) on random layouts against element(in, scale, zero_point,
/// type).
template <class In, class Out, class Convert, class Element>
void check_conversion(Isa isa, const Convert& convert, const Element& element, bool zero_points = true) {
  const ActiveIsa active(isa);
  Random random(11);
  for (int round = 0, rounds = harness::quick() ? 30 : 600; round < rounds; ++round) {
    Case c(random);
    if (!zero_points) std::ranges::fill(c.zero_point, 0);
    const Edge edge = round % 2 == 0 ? Edge::low : Edge::high;
    Placed<In> in(c.shape, Layout::random(random, c.shape.size(), true, sizeof(In)), edge);
    Placed<Out> out(c.shape, Layout::random(random, c.shape.size(), false, sizeof(Out)), edge);
    for_each_index(c.shape, [&](const Shape& index) {
      In value;
      draw(random, value);
      in.set(index, value);
    });
    std::vector<std::byte> expected(out.buffer.data(), out.buffer.data() + out.bytes);
    for_each_index(c.shape, [&](const Shape& index) {
      const std::size_t channel = c.channel(index);
      const Out value = element(in.get(index), c.scale[channel], c.zero_point[channel], c.type);
      __builtin_memcpy(expected.data() + (out.at(index) - out.buffer.data()), &value, sizeof value);
    });
    const int threads = 1 + round % 3;
    convert(in.const_view(c.shape), c.params(), c.type, out.view(c.shape), threads);
    const bool same = std::equal(expected.begin(), expected.end(), out.buffer.data());
    if (!same) harness::fail(__FILE__, __LINE__, c.name(threads));
  }
}

}  // namespace

ISA_TEST(quantize_driver_equals_definition_in_any_layout) {
  check_conversion<float, std::uint8_t>(isa, quantize,
                                        [](float x, float scale, std::int32_t zero_point, QuantType type) {
                                          return to_byte(x / scale, zero_point, type);
                                        });
}

ISA_TEST(dequantize_driver_equals_definition_in_any_layout) {
  check_conversion<std::uint8_t, float>(
      isa, dequantize, [](std::uint8_t q, float scale, std::int32_t zero_point, QuantType type) {
        return static_cast<float>(to_integer(q, type) - zero_point) * scale;
      });
}

ISA_TEST(requantize_driver_equals_definition_in_any_layout) {
  check_conversion<std::int32_t, std::uint8_t>(
      isa, requantize, [](std::int32_t acc, float scale, std::int32_t zero_point, QuantType type) {
        return to_byte(static_cast<float>(acc) * scale, zero_point, type);
      });
}

ISA_TEST(rescale_driver_equals_definition_in_any_layout) {
  const auto convert = [](const ArrayView<const std::int32_t>& acc, const QuantParams& params, QuantType,
                          const ArrayView<float>& y, int threads) { rescale(acc, params, y, threads); };
  const auto element = [](std::int32_t acc, float scale, std::int32_t, QuantType) {
    return static_cast<float>(acc) * scale;
  };
  check_conversion<std::int32_t, float>(isa, convert, element, false);
}

ISA_TEST(min_max_driver_equals_definition_in_any_layout) {
  const ActiveIsa active(isa);
  Random random(12);
  for (int round = 0, rounds = harness::quick() ? 30 : 600; round < rounds; ++round) {
    const Case c(random);
    Placed<float> x(c.shape, Layout::random(random, c.shape.size(), true, sizeof(float)), Edge::high);
    for_each_index(c.shape, [&](const Shape& index) {
      float value;
      draw(random, value);
      x.set(index, value);
    });
    constexpr float kInf = std::numeric_limits<float>::infinity();
    std::vector<float> low(c.scale.size()), high(low.size()), least(low.size(), kInf),
        greatest(low.size(), -kInf);
    for_each_index(c.shape, [&](const Shape& index) {
      const std::size_t channel = c.channel(index);
      least[channel] = std::min(least[channel], x.get(index));
      greatest[channel] = std::max(greatest[channel], x.get(index));
    });
    const auto reduce = [&] { min_max(x.const_view(c.shape), c.axis, low, high, 1 + round % 3); };
    if (std::ranges::find(c.shape, std::size_t{0}) != c.shape.end() && !low.empty()) {
      CHECK_THROWS(Error, reduce());
      continue;
    }
    reduce();
    CHECK_SAME(std::span<const float>(low), std::span<const float>(least), c.name(1 + round % 3));
    CHECK_SAME(std::span<const float>(high), std::span<const float>(greatest), c.name(1 + round % 3));
  }
}
