#include "pool_axes.h"

#include <cstdint>
#include <limits>
#include <string>

#include "step_checks.h"

namespace gristmill {
namespace {

std::size_t checked_extent(std::int64_t value, std::int64_t least, const char* name) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (value < least || value > kMost)
    throw Error(ErrorKind::argument, name,
                "expected " + std::to_string(least) + " to " + std::to_string(kMost) + ", got " +
                    std::to_string(value));
  return static_cast<std::size_t>(value);
}

/// The windows that fit; with ceil_mode one more may begin where elements are left over, if it does not begin
/// in the padding behind.
void require_windows(const PoolAxis& axis) {
  const std::size_t covered = (axis.kernel - 1) * axis.dilation + 1;
  const std::size_t padded = axis.in + axis.before + axis.after;
  const std::size_t floor = padded < covered ? 0 : (padded - covered) / axis.stride + 1;
  const bool left_over =
      padded < covered ? covered - padded < axis.stride : (padded - covered) % axis.stride != 0;
  const bool one_more = left_over && axis.out == floor + 1 && floor * axis.stride < axis.in + axis.before;
  if (axis.out == floor || one_more) return;
  throw Error(ErrorKind::shape, "out",
              "has extent " + std::to_string(axis.out) + " where the windows give " + std::to_string(floor));
}

}  // namespace

PoolAxes pool_axes(const PoolWindow& window, const Tensor& x, const Tensor& out) {
  const std::size_t rank = x.rank(), spatial = rank - std::min<std::size_t>(rank, 2);
  if (spatial < 1 || spatial > 3)
    throw Error(ErrorKind::shape, "x", "expected rank 3 to 5, got shape " + shape_text(x.shape()));
  require_rank("out", out, rank);
  if (!std::equal(x.shape().begin(), x.shape().begin() + 2, out.shape().begin()))
    throw Error(
        ErrorKind::shape, "out",
        "expected the batch and channels of " + shape_text(x.shape()) + ", got " + shape_text(out.shape()));
  for (const auto* values :
       {&window.kernel, &window.stride, &window.dilation, &window.pad_begin, &window.pad_end})
    if (values->size() != spatial)
      throw Error(ErrorKind::shape, "window",
                  "expected " + std::to_string(spatial) + " numbers, one for each spatial axis, got " +
                      std::to_string(values->size()));
  PoolAxes axes;
  for (std::size_t d = 0; d < spatial; ++d) {
    PoolAxis& axis = axes[3 - spatial + d];
    axis.in = checked_extent(static_cast<std::int64_t>(std::min(x.shape()[2 + d], kMostElements)), 0, "x");
    axis.out =
        checked_extent(static_cast<std::int64_t>(std::min(out.shape()[2 + d], kMostElements)), 0, "out");
    axis.kernel = checked_extent(window.kernel[d], 1, "kernel");
    axis.stride = checked_extent(window.stride[d], 1, "stride");
    axis.dilation = checked_extent(window.dilation[d], 1, "dilation");
    axis.before = checked_extent(window.pad_begin[d], 0, "padding");
    axis.after = checked_extent(window.pad_end[d], 0, "padding");
    require_windows(axis);
  }
  return axes;
}

}  // namespace gristmill
