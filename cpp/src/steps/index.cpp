#include "gristmill/steps/index.h"

#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "ranges.h"
#include "step_checks.h"

namespace gristmill {
namespace {

template <class Index>
class GatherStep final : public Step {
 public:
  GatherStep(const Tensor& x, const Tensor& indices, const Tensor& out, std::size_t axis)
      : split_(split_at(x.shape(), axis)),
        row_(split_.inner * element_size(x.dtype())),
        count_(element_count(indices.shape(), "indices")),
        x_(read("x", x)),
        indices_(read("indices", indices)),
        out_(write("out", out)) {}

  void run(const Frame& frame) const override {
    const auto* x = frame.at<const std::byte>(x_);
    const auto* indices = frame.at<const Index>(indices_);
    auto* out = frame.at<std::byte>(out_);
    for_each_range(split_.outer * count_, ceil_div(kRangeBytes, row_ + 1), frame.threads,
                   [&](std::size_t begin, std::size_t end) {
                     for (std::size_t i = begin; i < end; ++i) {
                       const std::size_t from = i / count_ * split_.extent + position(indices[i % count_]);
                       std::memcpy(out + i * row_, x + from * row_, row_);
                     }
                   });
  }

  std::string kernel() const override { return "gather"; }

 private:
  std::size_t position(Index index) const {
    const auto extent = static_cast<std::int64_t>(split_.extent);
    if (index < -extent || index >= extent)
      throw Error(ErrorKind::argument, "indices",
                  std::to_string(index) + " is out of range for an axis of " + std::to_string(extent));
    return static_cast<std::size_t>(index < 0 ? index + extent : index);
  }

  AxisSplit split_;
  std::size_t row_, count_;
  Address x_, indices_, out_;
};

template <class From, class To>
To convert(From value) {
  if constexpr (std::is_same_v<To, bool>) {
    return value != From{0};
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    using Limits = std::numeric_limits<To>;
    constexpr auto kLow = static_cast<From>(Limits::min());
    constexpr auto kEnd = static_cast<From>(Limits::max() / 2 + 1) * 2;  // one beyond the greatest
    if (value >= kEnd) return Limits::max();
    if (value <= kLow) return Limits::min();
    return value == value ? static_cast<To>(value) : To{0};
  } else {
    return static_cast<To>(value);
  }
}

/// bool is read as the byte that it is, of which any but 0 means true.
template <class From, class To, bool from_boolean>
void cast_run(const std::byte* x, std::byte* out, std::size_t begin, std::size_t end) {
  const From* from = reinterpret_cast<const From*>(x);
  To* to = reinterpret_cast<To*>(out);
  for (std::size_t i = begin; i < end; ++i) {
    if constexpr (from_boolean)
      to[i] = static_cast<To>(from[i] != 0);
    else
      to[i] = convert<From, To>(from[i]);
  }
}

using CastFunction = void (*)(const std::byte* x, std::byte* out, std::size_t begin, std::size_t end);

template <class From, bool from_boolean = false>
CastFunction cast_to(DType type) {
  switch (type) {
    case DType::u8:
      return cast_run<From, std::uint8_t, from_boolean>;
    case DType::s8:
      return cast_run<From, std::int8_t, from_boolean>;
    case DType::s32:
      return cast_run<From, std::int32_t, from_boolean>;
    case DType::s64:
      return cast_run<From, std::int64_t, from_boolean>;
    case DType::boolean:
      return cast_run<From, bool, from_boolean>;
    case DType::f32:
      break;
  }
  return cast_run<From, float, from_boolean>;
}

CastFunction cast_between(DType from, DType to) {
  switch (from) {
    case DType::u8:
      return cast_to<std::uint8_t>(to);
    case DType::s8:
      return cast_to<std::int8_t>(to);
    case DType::s32:
      return cast_to<std::int32_t>(to);
    case DType::s64:
      return cast_to<std::int64_t>(to);
    case DType::boolean:
      return cast_to<std::uint8_t, true>(to);
    case DType::f32:
      break;
  }
  return cast_to<float>(to);
}

class CastStep final : public Step {
 public:
  CastStep(const Tensor& x, const Tensor& out)
      : cast_(cast_between(x.dtype(), out.dtype())),
        count_(element_count(x.shape(), "x")),
        x_(read("x", x)),
        out_(write("out", out)) {}

  void run(const Frame& frame) const override {
    const auto* x = frame.at<const std::byte>(x_);
    auto* out = frame.at<std::byte>(out_);
    for_each_range(count_, kRangeBytes / sizeof(float), frame.threads,
                   [&](std::size_t begin, std::size_t end) { cast_(x, out, begin, end); });
  }

  std::string kernel() const override { return "cast"; }
  bool works_in_place() const override { return true; }

 private:
  CastFunction cast_;
  std::size_t count_;
  Address x_, out_;
};

}  // namespace

StepPtr gather_step(const Tensor& x, const Tensor& indices, const Tensor& out, std::int64_t axis) {
  require_dtype("indices", indices, {DType::s32, DType::s64});
  require_dtype("out", out, {x.dtype()});
  const std::size_t index = checked_axis(axis, x.rank(), "axis");
  std::vector<std::size_t> shape(x.shape().begin(), x.shape().begin() + static_cast<std::ptrdiff_t>(index));
  shape.insert(shape.end(), indices.shape().begin(), indices.shape().end());
  shape.insert(shape.end(), x.shape().begin() + static_cast<std::ptrdiff_t>(index) + 1, x.shape().end());
  require_shape("out", out, shape);
  element_count(x.shape(), "x");
  element_count(shape, "out");
  if (indices.dtype() == DType::s32)
    return std::make_unique<const GatherStep<std::int32_t>>(x, indices, out, index);
  return std::make_unique<const GatherStep<std::int64_t>>(x, indices, out, index);
}

StepPtr cast_step(const Tensor& x, const Tensor& out) {
  require_shape("out", out, x.shape());
  return std::make_unique<const CastStep>(x, out);
}

}  // namespace gristmill
