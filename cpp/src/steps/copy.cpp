#include "gristmill/steps/copy.h"

#include <algorithm>
#include <cstring>

#include "step_checks.h"
#include "strided_loops.h"

namespace gristmill {
namespace {

/// All elements of the view lie in its tensor.
void require_inside(const TensorView& view, const char* name) {
  require_rank_within_limit(view.shape.size(), name);
  if (view.strides.size() != view.shape.size())
    throw Error(ErrorKind::shape, name, "needs one stride for each dimension");
  const std::size_t elements = element_count(view.tensor.shape(), name);
  if (element_count(view.shape, name) == 0) return;
  // Offsets from the first element downward and upward; neither may pass the tensor's size.
  std::size_t below = 0, above = 0;
  for (std::size_t d = 0; d < view.shape.size(); ++d) {
    const std::ptrdiff_t stride = view.strides[d];
    const std::size_t step =
        stride < 0 ? std::size_t{0} - static_cast<std::size_t>(stride) : static_cast<std::size_t>(stride);
    const std::size_t reach = checked_product({step, view.shape[d] - 1}, name);
    std::size_t& side = stride < 0 ? below : above;
    if (reach > kMostElements - side) throw Error(ErrorKind::limit, name, "reaches beyond the address space");
    side += reach;
  }
  if (view.offset >= elements || below > view.offset || above >= elements - view.offset)
    throw Error(ErrorKind::limit, name, "the view reaches beyond its tensor " + type_text(view.tensor.type));
}

/// Sorted by stride, each dimension steps over all that the smaller ones span.
void require_distinct(const TensorView& view, const char* name) {
  std::vector<std::pair<std::size_t, std::size_t>> dims;
  for (std::size_t d = 0; d < view.shape.size(); ++d) {
    if (view.shape[d] == 0) return;
    if (view.shape[d] > 1)
      dims.emplace_back(static_cast<std::size_t>(std::abs(view.strides[d])), view.shape[d]);
  }
  std::ranges::sort(dims);
  std::size_t span = 1;
  for (const auto& [stride, extent] : dims) {
    if (stride < span) throw Error(ErrorKind::argument, name, "has several elements in one place");
    span += stride * (extent - 1);
  }
}

template <std::size_t arrays>
StridedLoops<arrays> loops_of(const std::array<const TensorView*, arrays>& views) {
  std::vector<StridedLoop<arrays>> loops(views[0]->shape.size());
  std::array<std::ptrdiff_t, arrays> start;
  for (std::size_t a = 0; a < arrays; ++a) {
    start[a] = static_cast<std::ptrdiff_t>(views[a]->offset);
    for (std::size_t d = 0; d < loops.size(); ++d) {
      loops[d].extent = views[0]->shape[d];
      loops[d].step[a] = views[a]->strides[d];
    }
  }
  return {loops, start};
}

/// A matrix whose rows are contiguous in the output and whose columns are contiguous in the input.
struct Transposition {
  std::size_t rows, columns;
  std::ptrdiff_t in_column, out_row;  // elements from one column to the next, and one row to the next
};

/// Square blocks, so that each cache line is used up while it is there.
template <class T>
void transpose(const T* in, T* out, const Transposition& t) {
  constexpr std::size_t kBlock = 64 / sizeof(T) * 2;
  for (std::size_t row = 0; row < t.rows; row += kBlock) {
    const std::size_t rows = std::min(kBlock, t.rows - row);
    for (std::size_t column = 0; column < t.columns; column += kBlock) {
      const std::size_t columns = std::min(kBlock, t.columns - column);
      const T* from = in + row + static_cast<std::ptrdiff_t>(column) * t.in_column;
      T* to = out + column + static_cast<std::ptrdiff_t>(row) * t.out_row;
      for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t c = 0; c < columns; ++c)
          to[static_cast<std::ptrdiff_t>(r) * t.out_row + static_cast<std::ptrdiff_t>(c)] =
              from[static_cast<std::ptrdiff_t>(c) * t.in_column + static_cast<std::ptrdiff_t>(r)];
    }
  }
}

template <class T>
void copy_line(const T* in, std::ptrdiff_t in_step, T* out, std::ptrdiff_t out_step, std::size_t count) {
  if (in_step == 1 && out_step == 1) {
    if (count < 16)
      for (std::size_t i = 0; i < count; ++i) out[i] = in[i];
    else
      std::memcpy(out, in, count * sizeof(T));
  } else if (in_step == 0 && out_step == 1) {
    std::fill_n(out, count, *in);
  } else {
    for (std::size_t i = 0; i < count; ++i, in += in_step, out += out_step) *out = *in;
  }
}

/// T is any type of the elements' size.
template <class T>
class CopyStep final : public Step {
 public:
  CopyStep(const TensorView& x, const TensorView& out)
      : x_(read("x", x.tensor)), out_(write("out", out.tensor)), loops_(loops_of<2>({&out, &x})) {
    const auto& line = loops_.line();
    if (line.step[0] != 1 || line.step[1] == 1 || line.extent < kLeastTransposed) return;
    for (std::size_t i = 0; i < loops_.outer().size(); ++i) {
      const auto& outer = loops_.outer()[i];
      if (outer.step[1] != 1 || outer.extent < kLeastTransposed) continue;
      const auto row = loops_.take(i);
      transposition_ = {row.extent, line.extent, line.step[1], row.step[0]};
      return;
    }
  }

  void run(const Frame& frame) const override {
    const T* in = frame.at<const T>(x_);
    T* out = frame.at<T>(out_);
    if (transposition_.rows != 0) return run_transposed(in, out, frame.threads);
    const auto& step = loops_.line().step;
    loops_.for_each_piece(sizeof(T), frame.threads, [&](const auto& at, std::size_t count) {
      copy_line(in + at[1], step[1], out + at[0], step[0], count);
    });
  }

  std::string kernel() const override {
    return transposition_.rows != 0 ? "transpose" : loops_.lines() <= 1 ? "copy" : "strided copy";
  }

 private:
  static constexpr std::size_t kLeastTransposed = 4;

  /// Threads share the outer loops if there are any, else the rows.
  void run_transposed(const T* in, T* out, int threads) const {
    const Transposition& t = transposition_;
    const std::size_t grain = kRangeBytes / sizeof(T);
    if (loops_.lines() > 1)
      return for_each_range(loops_.lines(), ceil_div(grain, t.rows * t.columns), threads,
                            [&](std::size_t begin, std::size_t end) {
                              loops_.for_each_line(
                                  begin, end, [&](const auto& at) { transpose(in + at[1], out + at[0], t); });
                            });
    for_each_range(t.rows, ceil_div(grain, t.columns), threads, [&](std::size_t begin, std::size_t end) {
      Transposition part = t;
      part.rows = end - begin;
      transpose(in + loops_.start()[1] + begin,
                out + loops_.start()[0] + static_cast<std::ptrdiff_t>(begin) * t.out_row, part);
    });
  }

  Address x_, out_;
  StridedLoops<2> loops_;
  Transposition transposition_{};
};

template <class T>
class FillStep final : public Step {
 public:
  FillStep(const TensorView& out, const std::array<std::byte, 8>& value)
      : out_(write("out", out.tensor)), loops_(loops_of<1>({&out})) {
    std::memcpy(&value_, value.data(), sizeof(T));
  }

  void run(const Frame& frame) const override {
    T* out = frame.at<T>(out_);
    const std::ptrdiff_t step = loops_.line().step[0];
    loops_.for_each_piece(sizeof(T), frame.threads, [&](const auto& at, std::size_t count) {
      copy_line(&value_, 0, out + at[0], step, count);
    });
  }

  std::string kernel() const override { return "fill"; }

 private:
  Address out_;
  StridedLoops<1> loops_;
  T value_;
};

}  // namespace

StepPtr copy_step(const TensorView& x, const TensorView& out) {
  require_dtype("out", out.tensor, {x.tensor.dtype()});
  if (x.shape != out.shape)
    throw Error(ErrorKind::shape, "out",
                "expected shape " + shape_text(x.shape) + ", got " + shape_text(out.shape));
  require_inside(x, "x");
  require_inside(out, "out");
  require_distinct(out, "out");
  switch (element_size(x.tensor.dtype())) {
    case 1:
      return std::make_unique<const CopyStep<std::uint8_t>>(x, out);
    case 4:
      return std::make_unique<const CopyStep<std::uint32_t>>(x, out);
    default:
      return std::make_unique<const CopyStep<std::uint64_t>>(x, out);
  }
}

StepPtr fill_step(const TensorView& out, const std::array<std::byte, 8>& value) {
  require_inside(out, "out");
  require_distinct(out, "out");
  switch (element_size(out.tensor.dtype())) {
    case 1:
      return std::make_unique<const FillStep<std::uint8_t>>(out, value);
    case 4:
      return std::make_unique<const FillStep<std::uint32_t>>(out, value);
    default:
      return std::make_unique<const FillStep<std::uint64_t>>(out, value);
  }
}

}  // namespace gristmill
