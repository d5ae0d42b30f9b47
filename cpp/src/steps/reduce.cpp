#include "gristmill/steps/reduce.h"

#include <limits>
#include <string>

#include "function_table.h"
#include "step_checks.h"
#include "strided_loops.h"

namespace gristmill {
namespace {

template <class T>
struct Sum {
  static constexpr T start = 0;
  static T combine(T sum, T value) {
    if constexpr (std::is_integral_v<T>) {
      using Wrapping = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<Wrapping>(sum) + static_cast<Wrapping>(value));
    } else {
      return sum + value;
    }
  }
};

template <class T>
struct Product {
  static constexpr T start = 1;
  static T combine(T product, T value) {
    if constexpr (std::is_integral_v<T>) {
      using Wrapping = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<Wrapping>(product) * static_cast<Wrapping>(value));
    } else {
      return product * value;
    }
  }
};

template <class T>
struct Greatest {
  using Limits = std::numeric_limits<T>;
  static constexpr T start = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  static T combine(T most, T value) { return value > most || value != value ? value : most; }
};

template <class T>
struct Least {
  using Limits = std::numeric_limits<T>;
  static constexpr T start = Limits::has_infinity ? Limits::infinity() : Limits::max();
  static T combine(T least, T value) { return value < least || value != value ? value : least; }
};

/// Several accumulators for each block of some thousand elements, so that additions do not wait for each
/// other and rounding errors stay small.
template <class T, template <class> class Combine>
T reduce_run(const T* x, std::size_t count, std::ptrdiff_t step, T total) {
  constexpr std::size_t kLanes = 16, kBlock = 4096;
  std::size_t i = 0;
  while (step == 1 && i + kLanes <= count) {
    T lanes[kLanes];
    for (T& lane : lanes) lane = Combine<T>::start;
    for (const std::size_t end = std::min(count, i + kBlock); i + kLanes <= end; i += kLanes)
      for (std::size_t l = 0; l < kLanes; ++l) lanes[l] = Combine<T>::combine(lanes[l], x[i + l]);
    for (std::size_t width = kLanes / 2; width > 0; width /= 2)
      for (std::size_t l = 0; l < width; ++l) lanes[l] = Combine<T>::combine(lanes[l], lanes[l + width]);
    total = Combine<T>::combine(total, lanes[0]);
  }
  for (; i < count; ++i) total = Combine<T>::combine(total, x[static_cast<std::ptrdiff_t>(i) * step]);
  return total;
}

/// Loops over the axes that stay, whose line is a run of outputs, and over those that are reduced.
struct Reduction {
  StridedLoops<2> kept;
  StridedLoops<1> reduced;
};

/// A run of outputs: where it starts in out and in x.
struct KeptRun {
  std::array<std::ptrdiff_t, 2> at;
  std::size_t count;
};

using ReduceFunction = void (*)(const void* x, void* out, const Reduction& nest, const KeptRun& kept);

/// Goes along whichever of the two innermost loops is contiguous.
template <class T, template <class> class Combine>
void reduce(const void* in, void* result, const Reduction& nest, const KeptRun& kept) {
  const T* x = static_cast<const T*>(in) + kept.at[1];
  T* out = static_cast<T*>(result) + kept.at[0];
  const std::ptrdiff_t step = nest.kept.line().step[1];
  const auto& run = nest.reduced.line();
  const bool along_outputs = step == 1 && run.step[0] != 1;
  std::fill_n(out, kept.count, Combine<T>::start);
  nest.reduced.for_each_line(0, nest.reduced.lines(), [&](const auto& offset) {
    const T* from = x + offset[0];
    if (along_outputs) {
      for (std::size_t r = 0; r < run.extent; ++r, from += run.step[0])
        for (std::size_t i = 0; i < kept.count; ++i) out[i] = Combine<T>::combine(out[i], from[i]);
    } else {
      for (std::size_t i = 0; i < kept.count; ++i, from += step)
        out[i] = reduce_run<T, Combine>(from, run.extent, run.step[0], out[i]);
    }
  });
}

void mean(const void* in, void* result, const Reduction& nest, const KeptRun& kept) {
  reduce<float, Sum>(in, result, nest, kept);
  float* out = static_cast<float*>(result) + kept.at[0];
  const auto count = static_cast<float>(nest.reduced.total());
  for (std::size_t i = 0; i < kept.count; ++i) out[i] /= count;
}

struct ReduceRow {
  std::string_view name;
  DType in;
  ReduceFunction run;
};

using enum DType;

constexpr ReduceRow kReduce[] = {
    {"sum", f32, reduce<float, Sum>},
    {"sum", s32, reduce<std::int32_t, Sum>},
    {"sum", s64, reduce<std::int64_t, Sum>},
    {"mean", f32, mean},
    {"max", f32, reduce<float, Greatest>},
    {"max", s32, reduce<std::int32_t, Greatest>},
    {"max", s64, reduce<std::int64_t, Greatest>},
    {"max", u8, reduce<std::uint8_t, Greatest>},
    {"max", s8, reduce<std::int8_t, Greatest>},
    {"min", f32, reduce<float, Least>},
    {"min", s32, reduce<std::int32_t, Least>},
    {"min", s64, reduce<std::int64_t, Least>},
    {"min", u8, reduce<std::uint8_t, Least>},
    {"min", s8, reduce<std::int8_t, Least>},
    {"prod", f32, reduce<float, Product>},
    {"prod", s32, reduce<std::int32_t, Product>},
    {"prod", s64, reduce<std::int64_t, Product>},
};

/// Which axes are reduced, after checking them and the shape of out.
std::vector<bool> reduced_axes(const Tensor& x, const Tensor& out, const std::vector<std::int64_t>& axes) {
  std::vector<bool> reduced(x.rank(), axes.empty());
  for (std::int64_t axis : axes) {
    const std::size_t index = checked_axis(axis, x.rank(), "axes");
    if (reduced[index]) throw Error(ErrorKind::argument, "axes", "names " + std::to_string(axis) + " twice");
    reduced[index] = true;
  }
  require_reduced_shape("out", out, x.shape(), reduced);
  return reduced;
}

Reduction make_nest(const Tensor& x, const std::vector<bool>& reduced) {
  require_rank_within_limit(x.rank(), "x");
  std::vector<StridedLoop<2>> kept;
  std::vector<StridedLoop<1>> inner;
  std::vector<std::size_t> out_shape = x.shape();
  for (std::size_t d = 0; d < x.rank(); ++d)
    if (reduced[d]) out_shape[d] = 1;
  element_count(out_shape, "out");
  const auto in = dense_strides(x.shape()), out = dense_strides(out_shape);
  for (std::size_t d = 0; d < x.rank(); ++d) {
    if (reduced[d])
      inner.push_back({x.shape()[d], {in[d]}});
    else
      kept.push_back({x.shape()[d], {out[d], in[d]}});
  }
  return {{kept, {}}, {inner, {}}};
}

class ReduceStep final : public Step {
 public:
  ReduceStep(const ReduceRow& row, const Tensor& x, const Tensor& out, const std::vector<bool>& reduced)
      : row_(row),
        nest_(make_nest(x, reduced)),
        item_(element_size(row.in)),
        x_(read("x", x)),
        out_(write("out", out)) {}

  void run(const Frame& frame) const override {
    const void* x = frame.at<const void>(x_);
    void* out = frame.at<void>(out_);
    const std::size_t read_bytes = std::max<std::size_t>(nest_.reduced.total(), 1) * item_;
    nest_.kept.for_each_piece(read_bytes, frame.threads, [&](const auto& at, std::size_t count) {
      row_.run(x, out, nest_, {at, count});
    });
  }

  std::string kernel() const override { return "reduce " + std::string(row_.name); }

 private:
  const ReduceRow& row_;
  Reduction nest_;
  std::size_t item_;
  Address x_, out_;
};

}  // namespace

StepPtr reduce_step(std::string_view function, const Tensor& x, const Tensor& out,
                    const std::vector<std::int64_t>& axes) {
  const ReduceRow& row = find_function(std::span<const ReduceRow>(kReduce), function, x.dtype(), "x");
  require_dtype("out", out, {x.dtype()});
  return std::make_unique<const ReduceStep>(row, x, out, reduced_axes(x, out, axes));
}

}  // namespace gristmill
