#include "gristmill/steps/pool.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "pool_axes.h"
#include "ranges.h"
#include "step_checks.h"

namespace gristmill {
namespace {

template <class T>
struct Greatest {
  static constexpr T start =
      std::is_floating_point_v<T> ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest();
  static T combine(T most, T value) {
    if constexpr (std::is_integral_v<T>) return value > most ? value : most;
    return value > most || value != value ? value : most;
  }
};

struct Sum {
  static constexpr float start = 0;
  static float combine(float sum, float value) { return sum + value; }
};

/// Windows are combined first along the rows of x into one line, then along the line: kernel rows + kernel
/// columns operations instead of their product, on consecutive elements.
template <class T, class Combine>
class PoolStep final : public Step {
 public:
  PoolStep(const PoolAxes& axes, bool count_padding, const Tensor& x, const Tensor& out)
      : axes_(axes),
        count_padding_(count_padding),
        planes_(x.shape()[0] * x.shape()[1]),
        x_(read("x", x)),
        out_(write("out", out)) {
    const PoolAxis& columns = axes_[2];
    const std::size_t reach =
        columns.out == 0 ? 0
                         : (columns.out - 1) * columns.stride + (columns.kernel - 1) * columns.dilation + 1;
    line_ = std::max(reach, columns.before + columns.in);
    checked_product({line_, 3 * sizeof(T)}, "x");
    whole_ = std::ranges::all_of(axes_, [](const PoolAxis& axis) {
      return axis.out == 1 && axis.before == 0 && axis.dilation == 1 && axis.kernel == axis.in;
    });
    if constexpr (!kMax)
      for (std::size_t o = 0; o < columns.out; ++o)
        column_counts_.push_back(static_cast<float>(columns.counted(o, count_padding_)));
  }

  void run(const Frame& frame) const override {
    const T* x = frame.at<const T>(x_);
    T* out = frame.at<T>(out_);
    const std::size_t in_plane = axes_[0].in * axes_[1].in * axes_[2].in;
    const std::size_t out_plane = axes_[0].out * axes_[1].out * axes_[2].out;
    if (planes_ * out_plane == 0) return;
    const std::size_t group = ceil_div(kRangeBytes, (in_plane + out_plane) * sizeof(T));
    for_each_task(frame.workspace.buffers(), ceil_div(planes_, group), frame.threads,
                  [&](WorkerScratch& scratch, std::size_t task) {
                    const std::size_t first = task * group, last = std::min(planes_, first + group);
                    if (whole_) return pool_whole(x + first * in_plane, out + first, last - first, in_plane);
                    T* line = static_cast<T*>(scratch.panel.reserve((line_ + 2 * line_phase()) * sizeof(T)));
                    std::fill_n(line, line_, Combine::start);
                    for (std::size_t p = first; p < last; ++p)
                      pool_plane(x + p * in_plane, out + p * out_plane, line, line + line_);
                  });
  }

  std::string kernel() const override { return kMax ? "max pool" : "average pool"; }

 private:
  static constexpr bool kMax = !std::is_same_v<Combine, Sum>;

  /// One window for each plane: its elements are combined in their order, as ONNX Runtime does it, and those
  /// of several planes at a time, so that sums do not wait for each other.
  void pool_whole(const T* x, T* out, std::size_t planes, std::size_t elements) const {
    constexpr std::size_t kTogether = 16;
    std::size_t p = 0;
    for (; p + kTogether <= planes; p += kTogether)
      pool_together<kTogether>(x + p * elements, out + p, elements);
    for (; p < planes; ++p) pool_together<1>(x + p * elements, out + p, elements);
  }

  template <std::size_t together>
  static void pool_together(const T* x, T* out, std::size_t elements) {
    std::array<T, together> sum;
    for (std::size_t l = 0; l < together; ++l) sum[l] = x[l * elements];
    for (std::size_t i = 1; i < elements; ++i)
      for (std::size_t l = 0; l < together; ++l) sum[l] = Combine::combine(sum[l], x[l * elements + i]);
    for (std::size_t l = 0; l < together; ++l) {
      if constexpr (!kMax) sum[l] /= static_cast<T>(elements);
      out[l] = sum[l];
    }
  }

  void pool_plane(const T* x, T* out, T* line, T* phases) const {
    for (std::size_t d = 0; d < axes_[0].out; ++d)
      for (std::size_t row = 0; row < axes_[1].out; ++row, out += axes_[2].out) {
        const std::size_t rows = combine_rows(x, line, d, row);
        combine_line(line, phases, out);
        if constexpr (!kMax)
          for (std::size_t o = 0; o < axes_[2].out; ++o) out[o] /= static_cast<T>(rows) * column_counts_[o];
      }
  }

  /// Combines the input rows of one output row into the line, between its padding. Returns how many rows the
  /// mean is taken of.
  std::size_t combine_rows(const T* x, T* line, std::size_t d, std::size_t row) const {
    const auto& [slices, rows, columns] = axes_;
    const auto [first_slice, last_slice] = slices.inside(d);
    const auto [first_row, last_row] = rows.inside(row);
    T* to = line + columns.before;
    const std::size_t count = columns.in;  // a local: bytes that are stored may be any member's
    bool empty = true;
    for (std::size_t s = first_slice; s < last_slice; ++s)
      for (std::size_t r = first_row; r < last_row; ++r) {
        const std::size_t slice = d * slices.stride + s * slices.dilation - slices.before;
        const std::size_t source = row * rows.stride + r * rows.dilation - rows.before;
        const T* from = x + (slice * rows.in + source) * columns.in;
        if (empty)
          std::memcpy(to, from, count * sizeof(T));
        else
          for (std::size_t i = 0; i < count; ++i) to[i] = Combine::combine(to[i], from[i]);
        empty = false;
      }
    if (empty) std::fill_n(to, count, Combine::start);
    return slices.counted(d, count_padding_) * rows.counted(row, count_padding_);
  }

  void combine_line(const T* line, T* phases, T* out) const {
    const PoolAxis& columns = axes_[2];
    if (columns.stride == 2) {
      split_phases(line, phases);
      for (std::size_t tap = 0; tap < columns.kernel; ++tap) {
        const std::size_t at = tap * columns.dilation;
        combine_tap<1>(phases + at % 2 * line_phase() + at / 2, tap == 0, out);
      }
    } else {
      for (std::size_t tap = 0; tap < columns.kernel; ++tap) {
        const T* from = line + tap * columns.dilation;
        columns.stride == 1 ? combine_tap<1>(from, tap == 0, out) : combine_tap<0>(from, tap == 0, out);
      }
    }
  }

  /// Elements of a phase of the line, which holds every second one: with a stride of 2, what one tap reads
  /// for neighbouring outputs is then consecutive.
  std::size_t line_phase() const { return ceil_div(line_, 2); }

  void split_phases(const T* line, T* phases) const {
    const std::size_t half = line_ / 2;
    T* odd = phases + line_phase();
    for (std::size_t i = 0; i < half; ++i) phases[i] = line[2 * i];
    for (std::size_t i = 0; i < half; ++i) odd[i] = line[2 * i + 1];
    if (line_ % 2 != 0) phases[half] = line[line_ - 1];
  }

  /// Elements that a tap reads for neighbouring outputs are `fixed` apart, or the stride if that is 0.
  template <std::size_t fixed>
  void combine_tap(const T* from, bool first, T* out) const {
    const std::size_t stride = fixed != 0 ? fixed : axes_[2].stride, count = axes_[2].out;
    if (first)
      for (std::size_t o = 0; o < count; ++o) out[o] = from[o * stride];
    else
      for (std::size_t o = 0; o < count; ++o) out[o] = Combine::combine(out[o], from[o * stride]);
  }

  PoolAxes axes_;
  bool count_padding_, whole_ = false;
  std::size_t planes_, line_ = 0;
  std::vector<float> column_counts_;
  Address x_, out_;
};

}  // namespace

StepPtr pool_step(PoolKind kind, const PoolWindow& window, const Tensor& x, const Tensor& out) {
  if (kind == PoolKind::average)
    require_dtype("x", x, {DType::f32});
  else
    require_dtype("x", x, {DType::f32, DType::u8, DType::s8});
  require_dtype("out", out, {x.dtype()});
  const PoolAxes axes = pool_axes(window, x, out);
  element_count(x.shape(), "x");
  element_count(out.shape(), "out");
  if (kind == PoolKind::average)
    return std::make_unique<const PoolStep<float, Sum>>(axes, window.count_include_pad, x, out);
  if (x.dtype() == DType::u8)
    return std::make_unique<const PoolStep<std::uint8_t, Greatest<std::uint8_t>>>(axes, false, x, out);
  if (x.dtype() == DType::s8)
    return std::make_unique<const PoolStep<std::int8_t, Greatest<std::int8_t>>>(axes, false, x, out);
  return std::make_unique<const PoolStep<float, Greatest<float>>>(axes, false, x, out);
}

}  // namespace gristmill
