#pragma once

#include "kernels/unroll.h"
#include "window_kernels.h"

namespace gristmill {
namespace {

/// The loop over groups and steps that all window kernels share. Form provides
///
///     Element, Weight         of x and of the weights
///     kRows, kDepth, kWindow, kStride, kCopies
///     Sum                     the sums of a group's rows, zero when value-initialized
///     static void add(Sum&, const Element* window, const std::uint8_t* index, const Weight* weight)
///     Finish(const WindowJob&)
///         void store(const Sum& a, const Sum& b, std::size_t row, std::size_t count, std::size_t at) const
///                             stores a + b, of which the first `count` rows exist, from out[at] on
///
/// Two sums are kept for each input, so that additions need not wait for each other.
template <class Form>
struct WindowRows {
  using Element = typename Form::Element;
  using Weight = typename Form::Weight;
  using Sum = typename Form::Sum;
  static constexpr std::size_t kPlaces = Form::kRows * Form::kDepth;
  static constexpr std::size_t kStepBytes = kPlaces * (1 + sizeof(Weight));

  static void multiply(const WindowJob& job) {
    switch (job.inputs) {
      case 1:
        return multiply_inputs<1>(job);
      case 2:
        return multiply_inputs<2>(job);
      case 3:
        return multiply_inputs<3>(job);
      default:
        return multiply_inputs<4>(job);
    }
  }

 private:
  template <int inputs>
  static void multiply_inputs(const WindowJob& job) {
    const typename Form::Finish finish(job);
    const auto* const x = static_cast<const Element*>(job.x);
    for (std::size_t group = job.first_group; group < job.last_group; ++group) {
      Sum sum[2][inputs] = {};
      const auto add = [&](auto set, std::size_t step) GRISTMILL_INLINE {
        const auto* index = static_cast<const std::uint8_t*>(job.entries) + step * kStepBytes;
        const auto* weight = reinterpret_cast<const Weight*>(index + kPlaces);
        const Element* window = x + job.base[step];
        unroll<inputs>([&](auto n) GRISTMILL_INLINE {
          Form::add(sum[set][n], window + n * job.x_stride, index, weight);
        });
      };
      std::size_t step = job.start[group];
      const std::size_t end = job.start[group + 1];
      for (; step + 2 <= end; step += 2) {
        add(Index<0>{}, step);
        add(Index<1>{}, step + 1);
      }
      if (step < end) add(Index<0>{}, step);
      const std::size_t row = group * Form::kRows, left = job.weight_rows - row;
      unroll<inputs>([&](auto n) GRISTMILL_INLINE {
        finish.store(sum[0][n], sum[1][n], row, left < Form::kRows ? left : Form::kRows,
                     n * job.out_stride + row);
      });
    }
  }
};

template <class Form>
constexpr WindowFormat window_format(bool safe_pairs, std::size_t most_inputs) {
  static_assert(WindowRows<Form>::kPlaces % sizeof(typename Form::Weight) == 0 &&
                Form::kWindow <= kNoElement);
  return {Form::kRows,   Form::kDepth, Form::kWindow, Form::kStride,
          Form::kCopies, safe_pairs,   most_inputs,   WindowRows<Form>::multiply};
}

}  // namespace
}  // namespace gristmill
