#include <algorithm>
#include <cstdint>
#include <string>

#include "gristmill/steps/reduce.h"
#include "ranges.h"
#include "step_checks.h"

namespace gristmill {
namespace {

/// Whether a comes before b among the greatest elements; NaN comes before all numbers.
template <class T>
bool above(T a, T b) {
  return a > b || (a != a && b == b);
}

template <class T>
class ArgExtremeStep final : public Step {
 public:
  ArgExtremeStep(const Tensor& x, const Tensor& out, std::size_t axis, bool greatest, Tie tie)
      : split_(split_at(x.shape(), axis)),
        greatest_(greatest),
        tie_(tie),
        x_(read("x", x)),
        out_(write("out", out)) {}

  void run(const Frame& frame) const override {
    const T* x = frame.at<const T>(x_);
    std::int64_t* out = frame.at<std::int64_t>(out_);
    for_each_range(split_.outer * split_.inner, ceil_div(kRangeBytes, split_.extent * sizeof(T)),
                   frame.threads, [&](std::size_t first, std::size_t last) {
                     for (std::size_t i = first; i < last; ++i)
                       out[i] =
                           extreme_at(x + i / split_.inner * split_.extent * split_.inner + i % split_.inner);
                   });
  }

  std::string kernel() const override { return greatest_ ? "argmax" : "argmin"; }

 private:
  std::int64_t extreme_at(const T* x) const {
    std::size_t best = 0;
    T extreme = x[0];
    for (std::size_t e = 1; e < split_.extent && extreme == extreme; ++e) {
      const T value = x[e * split_.inner];
      const bool better = value != value || (greatest_ ? value > extreme : value < extreme);
      if (!better && !(tie_ == Tie::last && value == extreme)) continue;
      best = e;
      extreme = value;
    }
    return static_cast<std::int64_t>(best);
  }

  AxisSplit split_;
  bool greatest_;
  Tie tie_;
  Address x_, out_;
};

template <class T>
class TopKStep final : public Step {
 public:
  TopKStep(const Tensor& x, const Tensor& values, const Tensor& indices, std::size_t axis, bool greatest)
      : split_(split_at(x.shape(), axis)),
        k_(values.shape()[axis]),
        greatest_(greatest),
        x_(read("x", x)),
        values_(write("values", values)),
        indices_(write("indices", indices)) {}

  void run(const Frame& frame) const override {
    const std::size_t lines = split_.outer * split_.inner;
    if (lines == 0 || k_ == 0) return;
    const T* x = frame.at<const T>(x_);
    T* values = frame.at<T>(values_);
    std::int64_t* indices = frame.at<std::int64_t>(indices_);
    for_each_task(
        frame.workspace.buffers(), lines, frame.threads, [&](WorkerScratch& scratch, std::size_t line) {
          auto* order = static_cast<std::size_t*>(scratch.panel.reserve(split_.extent * sizeof(std::size_t)));
          const std::size_t outer = line / split_.inner, inner = line % split_.inner;
          const T* from = x + outer * split_.extent * split_.inner + inner;
          sort_greatest(from, order);
          for (std::size_t i = 0; i < k_; ++i) {
            const std::size_t to = (outer * k_ + i) * split_.inner + inner;
            values[to] = from[order[i] * split_.inner];
            indices[to] = static_cast<std::int64_t>(order[i]);
          }
        });
  }

  std::string kernel() const override { return "top k"; }

 private:
  void sort_greatest(const T* x, std::size_t* order) const {
    for (std::size_t e = 0; e < split_.extent; ++e) order[e] = e;
    const auto before = [&](std::size_t a, std::size_t b) {
      const T left = x[a * split_.inner], right = x[b * split_.inner];
      if (above(left, right)) return greatest_;
      if (above(right, left)) return !greatest_;
      return a < b;
    };
    // A heap of the k best is fast while most elements are not among them.
    constexpr std::size_t kManyTimes = 256;
    std::size_t *const middle = order + k_, *const end = order + split_.extent;
    if (k_ * kManyTimes <= split_.extent) return std::partial_sort(order, middle, end, before);
    if (middle != end) std::nth_element(order, middle, end, before);
    std::sort(order, middle, before);
  }

  AxisSplit split_;
  std::size_t k_;
  bool greatest_;
  Address x_, values_, indices_;
};

}  // namespace

StepPtr arg_extreme_step(const Tensor& x, const Tensor& out, std::int64_t axis, bool greatest, Tie tie) {
  require_dtype("out", out, {DType::s64});
  const std::size_t index = checked_axis(axis, x.rank(), "axis");
  std::vector<bool> reduced(x.rank());
  reduced[index] = true;
  require_reduced_shape("out", out, x.shape(), reduced);
  element_count(x.shape(), "x");
  if (x.shape()[index] == 0) throw Error(ErrorKind::shape, "x", "has no element along the axis");
  switch (x.dtype()) {
    case DType::f32:
      return std::make_unique<const ArgExtremeStep<float>>(x, out, index, greatest, tie);
    case DType::s32:
      return std::make_unique<const ArgExtremeStep<std::int32_t>>(x, out, index, greatest, tie);
    case DType::s64:
      return std::make_unique<const ArgExtremeStep<std::int64_t>>(x, out, index, greatest, tie);
    case DType::u8:
      return std::make_unique<const ArgExtremeStep<std::uint8_t>>(x, out, index, greatest, tie);
    case DType::s8:
      return std::make_unique<const ArgExtremeStep<std::int8_t>>(x, out, index, greatest, tie);
    case DType::boolean:
      break;
  }
  throw Error(ErrorKind::dtype, "x", "expected numbers, got bool");
}

StepPtr top_k_step(const Tensor& x, const Tensor& values, const Tensor& indices, std::int64_t axis,
                   bool greatest) {
  require_dtype("x", x, {DType::f32, DType::s32, DType::s64});
  require_dtype("values", values, {x.dtype()});
  require_dtype("indices", indices, {DType::s64});
  const std::size_t index = checked_axis(axis, x.rank(), "axis");
  require_rank("values", values, x.rank());
  std::vector<std::size_t> shape = x.shape();
  shape[index] = values.shape()[index];
  require_shape("values", values, shape);
  require_shape("indices", indices, shape);
  if (shape[index] > x.shape()[index])
    throw Error(
        ErrorKind::shape, "values",
        "asks for " + std::to_string(shape[index]) + " of " + std::to_string(x.shape()[index]) + " elements");
  element_count(x.shape(), "x");
  if (x.dtype() == DType::s32)
    return std::make_unique<const TopKStep<std::int32_t>>(x, values, indices, index, greatest);
  if (x.dtype() == DType::s64)
    return std::make_unique<const TopKStep<std::int64_t>>(x, values, indices, index, greatest);
  return std::make_unique<const TopKStep<float>>(x, values, indices, index, greatest);
}

}  // namespace gristmill
