#pragma once

#include "kernels/unroll.h"
#include "window_kernels.h"

namespace gristmill {
namespace {

/// One step and its window.
template <class Element, class Weight>
struct WindowStep {
  const Element* window;
  const std::uint8_t* index;
  const Weight* weight;
};

/// Groups whose sums are finished together, to fill the vectors of bytes that are stored.
inline constexpr int kFinished = 4;

/// The loop over groups and steps that all window kernels share. Form provides
///
///     Element, Weight         of x and of the weights
///     kRows, kDepth, kWindow, kStride, kAtOnce, kFirstIndex
///     Sum                     the sums of a group's rows, zero when value-initialized
///     static Sum total(const Sum&, const Sum&)
///     static void add(Sum&, const WindowStep<Element, Weight>&)
///     static void add_two(Sum&, const WindowStep<Element, Weight>&, const WindowStep<Element, Weight>&)
///                             where two steps at once are cheaper
///     Finish(const WindowJob&)
///         void store(const Sum (&)[kFinished], std::size_t row, std::size_t count, std::size_t at) const
///                             stores the sums of the rows from `row` on, of which the first `count` exist,
///                             from out[at] on
///
/// Two sums are kept for each input where those of few inputs would wait for each other.
template <class Form>
struct WindowRows {
  using Element = typename Form::Element;
  using Weight = typename Form::Weight;
  using Sum = typename Form::Sum;
  static constexpr std::size_t kPlaces = Form::kRows * Form::kDepth;
  static constexpr std::size_t kStepBytes = kPlaces * (1 + sizeof(Weight));
  /// Bytes from a step to what is prefetched with it: weights that no cache but the last one holds are all
  /// that a single input waits for.
  static constexpr std::size_t kAhead = 3072;

  template <int inputs = Form::kAtOnce>
  static void multiply(const WindowJob& job) {
    if constexpr (inputs > 1) {
      if (job.inputs < inputs) return multiply<inputs - 1>(job);
    }
    multiply_inputs<inputs>(job);
  }

 private:
  template <int inputs>
  static void multiply_inputs(const WindowJob& job) {
    const typename Form::Finish finish(job);
    for (std::size_t first = job.first_group; first < job.last_group; first += kFinished) {
      const std::size_t groups = job.last_group - first < kFinished ? job.last_group - first : kFinished;
      Sum sum[inputs][kFinished];
      for (std::size_t g = 0; g < kFinished; ++g) {
        if (g < groups) {
          multiply_group(job, first + g, sum, g);
        } else {
          unroll<inputs>([&](auto n) GRISTMILL_INLINE { sum[n][g] = Sum{}; });
        }
      }
      const std::size_t row = first * Form::kRows, left = job.weight_rows - row;
      const std::size_t count = left < groups * Form::kRows ? left : groups * Form::kRows;
      unroll<inputs>([&](auto n)
                         GRISTMILL_INLINE { finish.store(sum[n], row, count, n * job.out_stride + row); });
    }
  }

  template <int inputs>
  [[gnu::always_inline]] static void multiply_group(const WindowJob& job, std::size_t group,
                                                    Sum (&sums)[inputs][kFinished], std::size_t at) {
    const auto at_step = [&](std::size_t step, std::size_t input) GRISTMILL_INLINE {
      const auto* index = static_cast<const std::uint8_t*>(job.entries) + step * kStepBytes;
      if (input == 0) {
        for (std::size_t line = 0; line < kStepBytes; line += 64) __builtin_prefetch(index + kAhead + line);
      }
      return WindowStep<Element, Weight>{
          static_cast<const Element*>(job.x) + job.base[step] + input * job.x_stride, index,
          reinterpret_cast<const Weight*>(index + kPlaces)};
    };
    constexpr int kSets = inputs > 8 ? 1 : 2;
    Sum sum[kSets][inputs] = {};
    std::size_t step = job.start[group];
    const std::size_t end = job.start[group + 1];
    for (; step + 2 <= end; step += 2) {
      if constexpr (requires { &Form::add_two; }) {
        unroll<inputs>([&](auto n) GRISTMILL_INLINE {
          Form::add_two(sum[0][n], at_step(step, n), at_step(step + 1, n));
        });
      } else {
        unroll<inputs>([&](auto n) GRISTMILL_INLINE { Form::add(sum[0][n], at_step(step, n)); });
        unroll<inputs>([&](auto n) GRISTMILL_INLINE { Form::add(sum[kSets - 1][n], at_step(step + 1, n)); });
      }
    }
    if (step < end) unroll<inputs>([&](auto n) GRISTMILL_INLINE { Form::add(sum[0][n], at_step(step, n)); });
    unroll<inputs>([&](auto n) GRISTMILL_INLINE {
      sums[n][at] = kSets == 2 ? Form::total(sum[0][n], sum[kSets - 1][n]) : sum[0][n];
    });
  }
};

template <class Form>
constexpr WindowFormat window_format(bool safe_pairs, std::size_t most_inputs) {
  static_assert(WindowRows<Form>::kPlaces % sizeof(typename Form::Weight) == 0 &&
                Form::kWindow <= (sizeof(typename Form::Weight) == 1 ? 256 : kNoElement));
  return {Form::kRows,   Form::kDepth,  Form::kWindow,
          Form::kStride, Form::kAtOnce, Form::kFirstIndex,
          safe_pairs,    most_inputs,   WindowRows<Form>::template multiply<>};
}

}  // namespace
}  // namespace gristmill
