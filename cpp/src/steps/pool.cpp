#include "gristmill/steps/pool.h"

#include <algorithm>
#include <array>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "gristmill/isa.h"
#include "kernel_table.h"
#include "kernels/pool_combine.h"
#include "pool_axes.h"
#include "ranges.h"
#include "step_checks.h"

namespace gristmill {
namespace {

/// `lines` are the kernels of Combine.
template <class T, template <class> class Combine>
class PoolStep final : public Step {
 public:
  PoolStep(const PoolAxes& axes, bool count_padding, const PoolLines<T>& lines, const Tensor& x,
           const Tensor& out)
      : axes_(axes),
        lines_(lines),
        count_padding_(count_padding),
        planes_(x.shape()[0] * x.shape()[1]),
        x_(read("x", x)),
        out_(write("out", out)) {
    const PoolAxis& columns = axes_[2];
    const std::size_t reach =
        columns.out == 0 ? 0
                         : (columns.out - 1) * columns.stride + (columns.kernel - 1) * columns.dilation + 1;
    line_ = std::max(reach, columns.before + columns.in) + 1;
    if (planes_ != 0 && columns.out != 0) sources_ = sources();
    kept_ = std::clamp<std::size_t>(kLineBytes / checked_product({line_, sizeof(T)}, "x"), 1,
                                    std::max<std::size_t>(sources_.size(), 1));
    whole_ = std::ranges::all_of(axes_, [](const PoolAxis& axis) {
      return axis.out == 1 && axis.before == 0 && axis.dilation == 1 && axis.kernel == axis.in;
    });
    if constexpr (!kMax)
      for (std::size_t o = 0; o < columns.out; ++o)
        column_counts_.push_back(static_cast<T>(columns.counted(o, count_padding_)));
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
                    T* lines = static_cast<T*>(scratch.panel.reserve(kept_ * line_ * sizeof(T)));
                    for (std::size_t l = 0; l < kept_; ++l) fill_padding(lines + l * line_);
                    for (std::size_t p = first; p < last; ++p)
                      pool_plane(x + p * in_plane, out + p * out_plane, lines);
                  });
  }

  std::string kernel() const override { return kMax ? "max pool" : "average pool"; }

 private:
  static constexpr bool kMax = std::is_same_v<Combine<T>, PoolMax<T>>;
  /// What the lines of a thread may take, in the cache nearest to the core.
  static constexpr std::size_t kLineBytes = 16 * 1024;
  /// What an empty window yields.
  static constexpr T kEmpty = !kMax                         ? T{0}
                              : std::is_floating_point_v<T> ? -std::numeric_limits<T>::infinity()
                                                            : std::numeric_limits<T>::lowest();

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
      for (std::size_t l = 0; l < together; ++l) sum[l] = Combine<T>::combine(sum[l], x[l * elements + i]);
    for (std::size_t l = 0; l < together; ++l) {
      if constexpr (!kMax) sum[l] /= static_cast<T>(elements);
      out[l] = sum[l];
    }
  }

  /// The input of one output row: lines from element `first` on, of some slices and of some rows in each.
  struct Source {
    std::size_t first, slices, rows;
    T counted;  ///< rows that a mean is taken of
  };

  /// Lines of many rows are combined before the first is read again: a load must not wait for the stores of
  /// which it takes parts.
  void pool_plane(const T* x, T* out, T* lines) const {
    const PoolAxis& columns = axes_[2];
    for (std::size_t first = 0; first < sources_.size(); first += kept_) {
      const auto sources = std::span(sources_).subspan(first, std::min(kept_, sources_.size() - first));
      T* line = lines;
      for (const Source& source : sources) combine_rows(x, source, std::exchange(line, line + line_));
      line = lines;
      for (const Source& source : sources) {
        lines_.taps({std::exchange(line, line + line_), columns.kernel, columns.dilation, columns.stride, out,
                     columns.out});
        if constexpr (!kMax)
          for (std::size_t o = 0; o < columns.out; ++o) out[o] /= source.counted * column_counts_[o];
        out += columns.out;
      }
    }
  }

  void fill_padding(T* line) const {
    const std::size_t left = axes_[2].before, right = left + axes_[2].in;
    std::fill(line, line + left, kEmpty);
    std::fill(line + right, line + line_, kEmpty);
  }

  /// Combines the input rows of one output row into the line, between its padding.
  void combine_rows(const T* x, const Source& source, T* line) const {
    const auto& [slices, rows, columns] = axes_;
    T* to = line + columns.before;
    if (source.slices == 0 || source.rows == 0)
      std::fill_n(to, columns.in, kEmpty);
    else
      lines_.rows({x + source.first, source.slices, slices.dilation * rows.in * columns.in, source.rows,
                   rows.dilation * columns.in, to, columns.in});
  }

  std::vector<Source> sources() const {
    const auto& [slices, rows, columns] = axes_;
    std::vector<Source> found;
    found.reserve(checked_product({slices.out, rows.out}, "out"));
    for (std::size_t d = 0; d < slices.out; ++d)
      for (std::size_t row = 0; row < rows.out; ++row) {
        const auto [first_slice, last_slice] = slices.inside(d);
        const auto [first_row, last_row] = rows.inside(row);
        const std::size_t slice = d * slices.stride + first_slice * slices.dilation - slices.before;
        const std::size_t line = row * rows.stride + first_row * rows.dilation - rows.before;
        found.push_back(
            {(slice * rows.in + line) * columns.in, last_slice - first_slice, last_row - first_row,
             static_cast<T>(slices.counted(d, count_padding_) * rows.counted(row, count_padding_))});
      }
    return found;
  }

  PoolAxes axes_;
  PoolLines<T> lines_;
  bool count_padding_, whole_ = false;
  std::size_t planes_, line_ = 0, kept_ = 1;
  std::vector<Source> sources_;
  std::vector<T> column_counts_;
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
  const PoolKernels& lines = active_kernels().pool;
  if (kind == PoolKind::average)
    return std::make_unique<const PoolStep<float, PoolSum>>(axes, window.count_include_pad, lines.sum_f32, x,
                                                            out);
  if (x.dtype() == DType::u8)
    return std::make_unique<const PoolStep<std::uint8_t, PoolMax>>(axes, false, lines.max_u8, x, out);
  if (x.dtype() == DType::s8)
    return std::make_unique<const PoolStep<std::int8_t, PoolMax>>(axes, false, lines.max_s8, x, out);
  return std::make_unique<const PoolStep<float, PoolMax>>(axes, false, lines.max_f32, x, out);
}

}  // namespace gristmill
