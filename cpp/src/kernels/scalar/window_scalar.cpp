#include "epilogue_scalar.h"
#include "kernels/window_rows.h"

namespace gristmill {
namespace {

template <class X, class W, class T, std::size_t depth>
struct Windows {
  using Element = X;
  using Weight = W;
  static constexpr std::size_t kRows = 4, kDepth = depth, kWindow = 64, kStride = 16, kAtOnce = 4;
  static constexpr std::uint8_t kFirstIndex = 0;

  struct Sum {
    T row[kRows];
  };

  static Sum total(const Sum& a, const Sum& b) {
    Sum sum;
    for (std::size_t i = 0; i < kRows; ++i) sum.row[i] = a.row[i] + b.row[i];
    return sum;
  }

  static void add(Sum& sum, const WindowStep<X, W>& step) {
    for (std::size_t i = 0; i < kRows * kDepth; ++i)
      if (step.index[i] != kNoElement)
        sum.row[i / kDepth] += static_cast<T>(step.window[step.index[i]]) * static_cast<T>(step.weight[i]);
  }
};

struct WindowsS8 : Windows<std::uint8_t, std::int8_t, std::int32_t, 4> {
  struct Finish {
    const WindowJob& job;
    explicit Finish(const WindowJob& of) : job(of) {}
    void store(const Sum (&sum)[kFinished], std::size_t row, std::size_t count, std::size_t at) const {
      const auto& epilogue = *static_cast<const EpilogueS8*>(job.epilogue);
      for (std::size_t i = 0; i < count; ++i)
        store_s8(epilogue, row + i, sum[i / kRows].row[i % kRows], job.out, at + i);
    }
  };
};

struct WindowsF32 : Windows<float, float, float, 1> {
  struct Finish {
    const WindowJob& job;
    explicit Finish(const WindowJob& of) : job(of) {}
    void store(const Sum (&sum)[kFinished], std::size_t row, std::size_t count, std::size_t at) const {
      const auto& epilogue = *static_cast<const EpilogueF32*>(job.epilogue);
      for (std::size_t i = 0; i < count; ++i)
        static_cast<float*>(job.out)[at + i] = finish_f32(epilogue, row + i, sum[i / kRows].row[i % kRows]);
    }
  };
};

}  // namespace

void install_window_scalar(WindowKernels& slots) {
  slots.s8 = window_format<WindowsS8>(false, 4);
  slots.f32 = window_format<WindowsF32>(false, 4);
}

}  // namespace gristmill
