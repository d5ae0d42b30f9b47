#include "gristmill/steps/resize.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include "ranges.h"
#include "resize_axis.h"
#include "step_checks.h"

namespace gristmill {
namespace {

/// x as [outer][three axes], of which missing ones come first and have extent 1.
struct ResizeNest {
  std::size_t outer = 1;
  std::array<ResizeAxis, 3> axes;
};

/// Rows of the output are made one by one: rows of x are combined into a line, which is then interpolated
/// along itself. T is float, or for nearest neighbours any type of the elements' size.
template <class T>
class ResizeStep final : public Step {
 public:
  ResizeStep(const Tensor& x, const Tensor& out, ResizeNest nest, T extrapolation)
      : nest_(std::move(nest)), extrapolation_(extrapolation), x_(read("x", x)), out_(write("out", out)) {}

  void run(const Frame& frame) const override {
    const T* x = frame.at<const T>(x_);
    T* out = frame.at<T>(out_);
    const ResizeAxis& columns = nest_.axes[2];
    const std::size_t total = nest_.outer * nest_.axes[0].out * nest_.axes[1].out;
    const std::size_t group = ceil_div(kRangeBytes, columns.out * sizeof(T));
    for_each_task(frame.workspace.buffers(), ceil_div(total, group), frame.threads,
                  [&](WorkerScratch& scratch, std::size_t task) {
                    T* line = static_cast<T*>(scratch.panel.reserve(columns.in * sizeof(T)));
                    for (std::size_t r = task * group; r < std::min(total, (task + 1) * group); ++r)
                      make_row(x, r, line, out + r * columns.out);
                  });
  }

  std::string kernel() const override {
    return nest_.axes[2].taps * nest_.axes[1].taps * nest_.axes[0].taps == 1 ? "resize nearest" : "resize";
  }

 private:
  void make_row(const T* x, std::size_t index, T* line, T* out) const {
    const auto& [slices, rows, columns] = nest_.axes;
    const std::size_t row = index % rows.out, slice = index / rows.out % slices.out;
    if (slices.outside[slice] != 0 || rows.outside[row] != 0) {
      std::fill_n(out, columns.out, extrapolation_);
      return;
    }
    const T* image = x + index / (rows.out * slices.out) * slices.in * rows.in * columns.in;
    const T* source = combine_rows(image, slice, row, line);
    if (columns.taps == 1) {
      for (std::size_t o = 0; o < columns.out; ++o) out[o] = source[columns.index[o]];
    } else if constexpr (std::is_same_v<T, float>) {
      interpolate(source, out);
    }
    for (std::size_t o = 0; o < columns.out; ++o)
      if (columns.outside[o] != 0) out[o] = extrapolation_;
  }

  /// The row of x that an output row is made from, or the line that several were combined into.
  const T* combine_rows(const T* image, std::size_t slice, std::size_t row, T* line) const {
    const auto& [slices, rows, columns] = nest_.axes;
    const auto source = [&, &depth = slices, &height = rows, &width = columns](std::size_t s, std::size_t r) {
      return image + (depth.index[slice * depth.taps + s] * height.in + height.index[row * height.taps + r]) *
                         width.in;
    };
    if (slices.taps * rows.taps == 1) return source(0, 0);
    if constexpr (std::is_same_v<T, float>) {
      std::fill_n(line, columns.in, 0.0f);
      for (std::size_t s = 0; s < slices.taps; ++s)
        for (std::size_t r = 0; r < rows.taps; ++r) {
          const float weight = slices.weight[slice * slices.taps + s] * rows.weight[row * rows.taps + r];
          if (weight == 0) continue;
          const float* from = source(s, r);
          for (std::size_t i = 0; i < columns.in; ++i) line[i] += weight * from[i];
        }
    }
    return line;
  }

  void interpolate(const float* line, float* out) const {
    const ResizeAxis& columns = nest_.axes[2];
    const std::size_t* index = columns.index.data();
    const float* weight = columns.weight.data();
    for (std::size_t o = 0; o < columns.out; ++o, index += columns.taps, weight += columns.taps) {
      float sum = 0;
      for (std::size_t t = 0; t < columns.taps; ++t)
        if (weight[t] != 0) sum += weight[t] * line[index[t]];
      out[o] = sum;
    }
  }

  ResizeNest nest_;
  T extrapolation_;
  Address x_, out_;
};

ResizeNest make_nest(const Tensor& x, const Tensor& out, const ResizeParameters& parameters) {
  const std::size_t rank = x.rank();
  require_rank("out", out, rank);
  const auto require_one_each = [&](const std::vector<float>& values, const char* name) {
    if (values.size() != rank)
      throw Error(ErrorKind::shape, name,
                  "expected one number for each of " + std::to_string(rank) + " axes");
  };
  if (!parameters.scales.empty()) require_one_each(parameters.scales, "scales");
  if (parameters.coordinates == "tf_crop_and_resize") {
    require_one_each(parameters.roi_start, "roi");
    require_one_each(parameters.roi_end, "roi");
  }
  for (float scale : parameters.scales)
    if (!(scale > 0)) throw Error(ErrorKind::argument, "scales", "expected numbers above 0");
  ResizeNest nest;
  const bool empty = element_count(x.shape(), "x") == 0 || element_count(out.shape(), "out") == 0;
  for (std::size_t d = 0; d < rank; ++d) {
    const std::size_t in = x.shape()[d], wanted = out.shape()[d];
    if (wanted != 0 && in == 0) throw Error(ErrorKind::shape, "x", "has no elements to take values from");
    if (empty) {
      nest.outer = 0;
    } else if (d + 3 >= rank) {
      nest.axes[d + 3 - rank] = make_resize_axis(parameters, d, in, wanted);
    } else if (in == wanted) {
      nest.outer *= in;
    } else {
      throw Error(ErrorKind::shape, "out", "only the last three axes can be resized");
    }
  }
  return nest;
}

}  // namespace

StepPtr resize_step(const Tensor& x, const Tensor& out, const ResizeParameters& parameters) {
  require_dtype("out", out, {x.dtype()});
  if (parameters.mode != "nearest") require_dtype("x", x, {DType::f32});
  ResizeNest nest = make_nest(x, out, parameters);
  if (x.dtype() == DType::f32)
    return std::make_unique<const ResizeStep<float>>(x, out, std::move(nest), parameters.extrapolation);
  if (parameters.extrapolation != 0)
    throw Error(ErrorKind::dtype, "x", "only float32 takes an extrapolation value");
  switch (element_size(x.dtype())) {
    case 1:
      return std::make_unique<const ResizeStep<std::uint8_t>>(x, out, std::move(nest), std::uint8_t{0});
    case 4:
      return std::make_unique<const ResizeStep<std::uint32_t>>(x, out, std::move(nest), 0u);
    default:
      return std::make_unique<const ResizeStep<std::uint64_t>>(x, out, std::move(nest), std::uint64_t{0});
  }
}

}  // namespace gristmill
