#include <cmath>
#include <cstdint>
#include <numbers>
#include <type_traits>

#include "function_table.h"
#include "gristmill/isa.h"
#include "gristmill/steps/elementwise.h"
#include "kernel_table.h"
#include "ranges.h"
#include "step_checks.h"

namespace gristmill {
namespace {

/// What a function may use beside its input.
struct UnaryContext {
  float alpha, beta;
  const ElementwiseKernels* kernels;
};

using UnaryFunction = void (*)(const void* in, void* out, std::size_t count, const UnaryContext& context);

template <class In, class Out, class Function>
void map(const void* in, void* out, std::size_t count, const Function& function) {
  const In* from = static_cast<const In*>(in);
  Out* to = static_cast<Out*>(out);
  for (std::size_t i = 0; i < count; ++i) to[i] = function(from[i]);
}

/// A function of T without parameters.
template <class T, auto function, class Out = T>
void simple(const void* in, void* out, std::size_t count, const UnaryContext&) {
  map<T, Out>(in, out, count, function);
}

template <Curve kind>
void curve(const void* in, void* out, std::size_t count, const UnaryContext& context) {
  context.kernels->curve_f32(kind, context.alpha, static_cast<const float*>(in), static_cast<float*>(out),
                             count);
}

template <class T>
constexpr auto relu = [](T x) { return x < T{0} ? T{0} : x; };

/// Integers wrap around, as in numpy.
template <class T>
constexpr auto negate = [](T x) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<T>(std::make_unsigned_t<T>{0} - static_cast<std::make_unsigned_t<T>>(x));
  else
    return -x;
};

template <class T>
constexpr auto absolute = [](T x) {
  if constexpr (std::is_integral_v<T>)
    return x < 0 ? negate<T>(x) : x;
  else
    return std::fabs(x);
};

template <class T>
constexpr auto sign = [](T x) {
  return x > T{0} ? T{1} : x < T{0} ? T{-1} : x;
};

constexpr auto gelu = [](float x) {
  return 0.5f * x * (1.0f + std::erf(x * (1 / std::numbers::sqrt2_v<float>)));
};

constexpr auto gelu_tanh = [](float x) {
  constexpr float kScale = 0.7978845608028654f;  // sqrt(2 / pi)
  return 0.5f * x * (1.0f + std::tanh(kScale * (x + 0.044715f * x * x * x)));
};

/// log(1 + e^x) without overflow.
constexpr auto softplus = [](float x) { return std::fmax(x, 0.0f) + std::log1p(std::exp(-std::fabs(x))); };

constexpr auto mish = [](float x) { return x * std::tanh(softplus(x)); };

/// A function of f32 with parameters.
template <auto function>
void parametric(const void* in, void* out, std::size_t count, const UnaryContext& context) {
  map<float, float>(in, out, count, [alpha = context.alpha, beta = context.beta](float x) {
    return function(x, alpha, beta);
  });
}

constexpr auto clip = [](float x, float low, float high) {
  const float raised = x < low ? low : x;
  return raised > high ? high : raised;
};
constexpr auto hardsigmoid = [](float x, float alpha, float beta) {
  return clip(alpha * x + beta, 0.0f, 1.0f);
};
constexpr auto elu = [](float x, float alpha, float) { return x < 0.0f ? alpha * std::expm1(x) : x; };
constexpr auto selu = [](float x, float alpha, float gamma) { return gamma * elu(x, alpha, 0.0f); };
constexpr auto celu = [](float x, float alpha, float) {
  const float below = alpha * std::expm1(x / alpha);
  return (x > 0.0f ? x : 0.0f) + (below > 0.0f ? 0.0f : below);
};
constexpr auto swish = [](float x, float alpha, float) { return x / (1.0f + std::exp(-alpha * x)); };
constexpr auto thresholded_relu = [](float x, float alpha, float) {
  return x > alpha || std::isnan(x) ? x : 0.0f;
};

struct UnaryRow {
  std::string_view name;
  DType in, out;
  UnaryFunction run;
  bool slow = false;  ///< some nanoseconds for each element: worth more threads
};

using enum DType;
using std::int32_t, std::int64_t, std::int8_t;

constexpr UnaryRow kUnary[] = {
    {"relu", f32, f32, simple<float, relu<float>>},
    {"relu", s32, s32, simple<int32_t, relu<int32_t>>},
    {"relu", s64, s64, simple<int64_t, relu<int64_t>>},
    {"relu", s8, s8, simple<int8_t, relu<int8_t>>},
    {"leaky_relu", f32, f32, curve<Curve::leaky_relu>},
    {"elu", f32, f32, parametric<elu>, true},
    {"selu", f32, f32, parametric<selu>, true},
    {"celu", f32, f32, parametric<celu>, true},
    {"clip", f32, f32, parametric<clip>},
    {"thresholded_relu", f32, f32, parametric<thresholded_relu>},
    {"sigmoid", f32, f32, curve<Curve::sigmoid>},
    {"hardsigmoid", f32, f32, parametric<hardsigmoid>},
    {"hardswish", f32, f32, curve<Curve::hardswish>},
    {"silu", f32, f32, curve<Curve::silu>},
    {"swish", f32, f32, parametric<swish>, true},
    {"mish", f32, f32, simple<float, mish>, true},
    {"tanh", f32, f32, simple<float, [](float x) { return std::tanh(x); }>, true},
    {"gelu", f32, f32, simple<float, gelu>, true},
    {"gelu_tanh", f32, f32, simple<float, gelu_tanh>, true},
    {"softplus", f32, f32, simple<float, softplus>, true},
    {"softsign", f32, f32, simple<float, [](float x) { return x / (1.0f + std::fabs(x)); }>},
    {"sqrt", f32, f32, simple<float, [](float x) { return std::sqrt(x); }>},
    {"reciprocal", f32, f32, simple<float, [](float x) { return 1.0f / x; }>},
    {"exp", f32, f32, simple<float, [](float x) { return std::exp(x); }>, true},
    {"log", f32, f32, simple<float, [](float x) { return std::log(x); }>, true},
    {"erf", f32, f32, simple<float, [](float x) { return std::erf(x); }>, true},
    {"sin", f32, f32, simple<float, [](float x) { return std::sin(x); }>, true},
    {"cos", f32, f32, simple<float, [](float x) { return std::cos(x); }>, true},
    {"floor", f32, f32, simple<float, [](float x) { return std::floor(x); }>},
    {"ceil", f32, f32, simple<float, [](float x) { return std::ceil(x); }>},
    {"round", f32, f32, simple<float, [](float x) { return std::nearbyint(x); }>},
    {"sign", f32, f32, simple<float, sign<float>>},
    {"sign", s32, s32, simple<int32_t, sign<int32_t>>},
    {"sign", s64, s64, simple<int64_t, sign<int64_t>>},
    {"neg", f32, f32, simple<float, negate<float>>},
    {"neg", s32, s32, simple<int32_t, negate<int32_t>>},
    {"neg", s64, s64, simple<int64_t, negate<int64_t>>},
    {"neg", s8, s8, simple<int8_t, negate<int8_t>>},
    {"abs", f32, f32, simple<float, absolute<float>>},
    {"abs", s32, s32, simple<int32_t, absolute<int32_t>>},
    {"abs", s64, s64, simple<int64_t, absolute<int64_t>>},
    {"abs", s8, s8, simple<int8_t, absolute<int8_t>>},
    {"isnan", f32, boolean, simple<float, [](float x) { return x != x; }, bool>},
    {"isinf", f32, boolean, simple<float, [](float x) { return std::isinf(x); }, bool>},
    {"not", boolean, boolean, simple<std::uint8_t, [](std::uint8_t x) { return x == 0; }, bool>},
};

class UnaryStep final : public Step {
 public:
  UnaryStep(const UnaryRow& row, const Tensor& x, const Tensor& out, const UnaryParameters& parameters)
      : row_(row),
        context_{parameters.alpha, parameters.beta, &active_kernels().elementwise},
        x_(read("x", x)),
        out_(write("out", out)),
        in_size_(element_size(row.in)),
        out_size_(element_size(row.out)),
        count_(element_count(x.shape(), "x")) {}

  void run(const Frame& frame) const override {
    const auto* in = frame.at<const std::byte>(x_);
    auto* out = frame.at<std::byte>(out_);
    const std::size_t grain = kRangeBytes / in_size_ / (row_.slow ? 16 : 1);
    for_each_range(count_, grain, frame.threads, [&](std::size_t begin, std::size_t end) {
      row_.run(in + begin * in_size_, out + begin * out_size_, end - begin, context_);
    });
  }

  std::string kernel() const override { return std::string(row_.name); }
  bool works_in_place() const override { return true; }

 private:
  const UnaryRow& row_;
  UnaryContext context_;
  Address x_, out_;
  std::size_t in_size_, out_size_, count_;
};

}  // namespace

StepPtr unary_step(std::string_view function, const Tensor& x, const Tensor& out,
                   const UnaryParameters& parameters) {
  const UnaryRow& row = find_function(std::span<const UnaryRow>(kUnary), function, x.dtype(), "x");
  require_dtype("out", out, {row.out});
  require_shape("out", out, x.shape());
  return std::make_unique<const UnaryStep>(row, x, out, parameters);
}

}  // namespace gristmill
