#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <type_traits>

#include "function_table.h"
#include "gristmill/isa.h"
#include "gristmill/steps/elementwise.h"
#include "kernel_table.h"
#include "step_checks.h"
#include "strided_loops.h"

namespace gristmill {
namespace {

struct BinaryContext {
  SumClamp clamp;
  const ElementwiseKernels* kernels;
};

/// A line of operands, of which each advances by 1 or stays.
struct BinaryLine {
  const void *a, *b;
  void* out;
  std::ptrdiff_t a_step, b_step;
  std::size_t count;
};

using BinaryFunction = void (*)(const BinaryLine& line, const BinaryContext& context);

template <class In, class Out, class Function>
void map(const BinaryLine& line, const Function& function) {
  const In* a = static_cast<const In*>(line.a);
  const In* b = static_cast<const In*>(line.b);
  Out* out = static_cast<Out*>(line.out);
  if (line.a_step == 1 && line.b_step == 1) {
    for (std::size_t i = 0; i < line.count; ++i) out[i] = function(a[i], b[i]);
  } else if (line.a_step == 1) {
    for (std::size_t i = 0; i < line.count; ++i) out[i] = function(a[i], *b);
  } else if (line.b_step == 1) {
    for (std::size_t i = 0; i < line.count; ++i) out[i] = function(*a, b[i]);
  } else {
    std::fill_n(out, line.count, static_cast<Out>(function(*a, *b)));
  }
}

template <class In, auto function, class Out = In>
void simple(const BinaryLine& line, const BinaryContext&) {
  map<In, Out>(line, function);
}

/// Arithmetic of T that cannot overflow: integers wrap around.
template <class T>
using Wrapping =
    typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>, std::type_identity<T>>::type;

template <class T>
constexpr auto add = [](T a, T b) { return static_cast<T>(Wrapping<T>(a) + Wrapping<T>(b)); };
template <class T>
constexpr auto subtract = [](T a, T b) { return static_cast<T>(Wrapping<T>(a) - Wrapping<T>(b)); };
template <class T>
constexpr auto multiply = [](T a, T b) { return static_cast<T>(Wrapping<T>(a) * Wrapping<T>(b)); };

template <class T>
constexpr auto divide = [](T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    if (b == 0) return T{0};
    if (b == -1) return static_cast<T>(Wrapping<T>{0} - Wrapping<T>(a));
  }
  return static_cast<T>(a / b);
};

/// The remainder has the divisor's sign.
template <class T>
constexpr auto modulo = [](T a, T b) {
  if (b == 0 || b == -1) return T{0};
  const T rest = static_cast<T>(a % b);
  return rest != 0 && (rest < 0) != (b < 0) ? static_cast<T>(rest + b) : rest;
};

/// The remainder has the dividend's sign.
template <class T>
constexpr auto truncated_modulo = [](T a, T b) {
  if constexpr (std::is_integral_v<T>)
    return b == 0 || b == -1 ? T{0} : static_cast<T>(a % b);
  else
    return std::fmod(a, b);
};

template <class T>
constexpr auto least = [](T a, T b) { return a < b || a != a ? a : b; };
template <class T>
constexpr auto greatest = [](T a, T b) { return a > b || a != a ? a : b; };

template <class T>
constexpr auto power = [](T base, T exponent) {
  if constexpr (std::is_integral_v<T>) {
    if (exponent < 0) {
      if (base == 1 || base == -1) return exponent % 2 == 0 ? T{1} : base;
      return T{0};
    }
    Wrapping<T> result = 1, square = static_cast<Wrapping<T>>(base);
    for (; exponent != 0; exponent = static_cast<T>(exponent / 2), square *= square)
      if (exponent % 2 != 0) result *= square;
    return static_cast<T>(result);
  } else {
    return exponent == T{2} ? base * base : std::pow(base, exponent);
  }
};

constexpr auto prelu = [](float x, float slope) { return x < 0.0f ? x * slope : x; };

void add_f32(const BinaryLine& line, const BinaryContext& context) {
  const auto [low, high] = context.clamp;
  if (line.a_step == 1 && line.b_step == 1)
    return context.kernels->add_f32(static_cast<const float*>(line.a), static_cast<const float*>(line.b), low,
                                    high, static_cast<float*>(line.out), line.count);
  map<float, float>(line, [low = low, high = high](float a, float b) {
    const float sum = a + b, raised = sum < low ? low : sum;
    return raised > high ? high : raised;
  });
}

struct BinaryRow {
  std::string_view name;
  DType in, out;
  BinaryFunction run;
};

using enum DType;
using std::int32_t, std::int64_t, std::int8_t, std::uint8_t;

/// One row for each of f32, s32 and s64.
#define GRISTMILL_ARITHMETIC(name, function)                                                                \
  {name, f32, f32, simple<float, function<float>>}, {name, s32, s32, simple<int32_t, function<int32_t>>}, { \
    name, s64, s64, simple<int64_t, function<int64_t>>                                                      \
  }

/// One row for each type that has an order.
#define GRISTMILL_COMPARISON(name, function)                    \
  {name, f32, boolean, simple<float, function{}, bool>},        \
      {name, s32, boolean, simple<int32_t, function{}, bool>},  \
      {name, s64, boolean, simple<int64_t, function{}, bool>},  \
      {name, u8, boolean, simple<uint8_t, function{}, bool>}, { \
    name, s8, boolean, simple<int8_t, function{}, bool>         \
  }

constexpr BinaryRow kBinary[] = {
    {"add", f32, f32, add_f32},
    {"add", s32, s32, simple<int32_t, add<int32_t>>},
    {"add", s64, s64, simple<int64_t, add<int64_t>>},
    GRISTMILL_ARITHMETIC("sub", subtract),
    GRISTMILL_ARITHMETIC("mul", multiply),
    GRISTMILL_ARITHMETIC("div", divide),
    GRISTMILL_ARITHMETIC("min", least),
    {"min", u8, u8, simple<uint8_t, least<uint8_t>>},
    {"min", s8, s8, simple<int8_t, least<int8_t>>},
    GRISTMILL_ARITHMETIC("max", greatest),
    {"max", u8, u8, simple<uint8_t, greatest<uint8_t>>},
    {"max", s8, s8, simple<int8_t, greatest<int8_t>>},
    GRISTMILL_ARITHMETIC("pow", power),
    GRISTMILL_ARITHMETIC("fmod", truncated_modulo),
    {"mod", s32, s32, simple<int32_t, modulo<int32_t>>},
    {"mod", s64, s64, simple<int64_t, modulo<int64_t>>},
    {"prelu", f32, f32, simple<float, prelu>},
    GRISTMILL_COMPARISON("equal", std::equal_to<>),
    {"equal", boolean, boolean,
     simple<uint8_t, [](uint8_t a, uint8_t b) { return (a != 0) == (b != 0); }, bool>},
    GRISTMILL_COMPARISON("less", std::less<>),
    GRISTMILL_COMPARISON("less_or_equal", std::less_equal<>),
    GRISTMILL_COMPARISON("greater", std::greater<>),
    GRISTMILL_COMPARISON("greater_or_equal", std::greater_equal<>),
    {"and", boolean, boolean, simple<uint8_t, [](uint8_t a, uint8_t b) { return a != 0 && b != 0; }, bool>},
    {"or", boolean, boolean, simple<uint8_t, [](uint8_t a, uint8_t b) { return a != 0 || b != 0; }, bool>},
    {"xor", boolean, boolean,
     simple<uint8_t, [](uint8_t a, uint8_t b) { return (a != 0) != (b != 0); }, bool>},
};

#undef GRISTMILL_ARITHMETIC
#undef GRISTMILL_COMPARISON

class BinaryStep final : public Step {
 public:
  BinaryStep(const BinaryRow& row, const Tensor& a, const Tensor& b, const Tensor& out, const SumClamp& clamp)
      : row_(row),
        context_{clamp, &active_kernels().elementwise},
        a_(read("a", a)),
        b_(read("b", b)),
        out_(write("out", out)),
        in_size_(static_cast<std::ptrdiff_t>(element_size(row.in))),
        out_size_(static_cast<std::ptrdiff_t>(element_size(row.out))),
        loops_(broadcast_loops<3>(out, {&a, &b}, {"a", "b"})) {}

  void run(const Frame& frame) const override {
    const auto* a = frame.at<const std::byte>(a_);
    const auto* b = frame.at<const std::byte>(b_);
    auto* out = frame.at<std::byte>(out_);
    const auto& step = loops_.line().step;
    loops_.for_each_piece(
        static_cast<std::size_t>(in_size_), frame.threads, [&](const auto& at, std::size_t count) {
          row_.run(
              {a + at[1] * in_size_, b + at[2] * in_size_, out + at[0] * out_size_, step[1], step[2], count},
              context_);
        });
  }

  std::string kernel() const override { return std::string(row_.name); }
  bool works_in_place() const override { return true; }

 private:
  const BinaryRow& row_;
  BinaryContext context_;
  Address a_, b_, out_;
  std::ptrdiff_t in_size_, out_size_;
  StridedLoops<3> loops_;
};

/// T is any type of the elements' size.
template <class T>
class SelectStep final : public Step {
 public:
  SelectStep(const Tensor& condition, const Tensor& a, const Tensor& b, const Tensor& out)
      : condition_(read("condition", condition)),
        a_(read("a", a)),
        b_(read("b", b)),
        out_(write("out", out)),
        loops_(broadcast_loops<4>(out, {&condition, &a, &b}, {"condition", "a", "b"})) {}

  void run(const Frame& frame) const override {
    const auto* condition = frame.at<const std::uint8_t>(condition_);
    const T* a = frame.at<const T>(a_);
    const T* b = frame.at<const T>(b_);
    T* out = frame.at<T>(out_);
    const auto& step = loops_.line().step;
    loops_.for_each_piece(sizeof(T), frame.threads, [&](const auto& at, std::size_t count) {
      for (std::ptrdiff_t i = 0; i < static_cast<std::ptrdiff_t>(count); ++i)
        out[at[0] + i] =
            condition[at[1] + i * step[1]] != 0 ? a[at[2] + i * step[2]] : b[at[3] + i * step[3]];
    });
  }

  std::string kernel() const override { return "select"; }
  bool works_in_place() const override { return true; }

 private:
  Address condition_, a_, b_, out_;
  StridedLoops<4> loops_;
};

}  // namespace

StepPtr binary_step(std::string_view function, const Tensor& a, const Tensor& b, const Tensor& out,
                    const SumClamp& clamp) {
  const BinaryRow& row = find_function(std::span<const BinaryRow>(kBinary), function, a.dtype(), "a");
  require_dtype("b", b, {a.dtype()});
  require_dtype("out", out, {row.out});
  if (!(clamp.low <= clamp.high)) throw Error(ErrorKind::argument, "clamp", "needs low <= high");
  constexpr SumClamp kNone;
  if (row.run != add_f32 && (clamp.low != kNone.low || clamp.high != kNone.high))
    throw Error(ErrorKind::argument, "clamp", "only a sum of float32 takes one");
  return std::make_unique<const BinaryStep>(row, a, b, out, clamp);
}

StepPtr select_step(const Tensor& condition, const Tensor& a, const Tensor& b, const Tensor& out) {
  require_dtype("condition", condition, {DType::boolean});
  require_dtype("b", b, {a.dtype()});
  require_dtype("out", out, {a.dtype()});
  switch (element_size(a.dtype())) {
    case 1:
      return std::make_unique<const SelectStep<std::uint8_t>>(condition, a, b, out);
    case 4:
      return std::make_unique<const SelectStep<std::uint32_t>>(condition, a, b, out);
    default:
      return std::make_unique<const SelectStep<std::uint64_t>>(condition, a, b, out);
  }
}

}  // namespace gristmill
