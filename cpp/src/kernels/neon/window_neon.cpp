#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/neon/epilogue_neon.h"
#include "kernels/window_rows.h"

namespace gristmill {
namespace {

/// A table look-up gathers sixteen bytes from a window of 64. Products fit s16, as in sparse blocks.
struct WindowsS8 {
  using Element = std::uint8_t;
  using Weight = std::int8_t;
  static constexpr std::size_t kRows = 4, kDepth = 4, kWindow = 64, kStride = 16, kAtOnce = 4;
  static constexpr std::uint8_t kFirstIndex = 0;

  /// Rows 0 and 1, and rows 2 and 3, two sums each.
  struct Sum {
    int32x4_t low, high;
  };

  static Sum total(const Sum& a, const Sum& b) {
    return {vaddq_s32(a.low, b.low), vaddq_s32(a.high, b.high)};
  }

  [[gnu::always_inline]] static void add(Sum& sum, const WindowStep<Element, Weight>& step) {
    const uint8x16_t x = vqtbl4q_u8(vld1q_u8_x4(step.window), vld1q_u8(step.index));
    const int8x16_t w = vld1q_s8(step.weight);
    const int16x8_t x_low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x)));
    const int16x8_t x_high = vreinterpretq_s16_u16(vmovl_high_u8(x));
    sum.low = vpadalq_s16(sum.low, vmulq_s16(x_low, vmovl_s8(vget_low_s8(w))));
    sum.high = vpadalq_s16(sum.high, vmulq_s16(x_high, vmovl_high_s8(w)));
  }

  class Finish {
   public:
    explicit Finish(const WindowJob& job)
        : job_(job), channels_(*static_cast<const EpilogueS8*>(job.epilogue)), epilogue_(channels_) {}

    [[gnu::always_inline]] void store(const Sum (&sum)[kFinished], std::size_t row, std::size_t count,
                                      std::size_t at) const {
      int32x4_t rows[kFinished];
      for (int g = 0; g < kFinished; ++g) rows[g] = vpaddq_s32(sum[g].low, sum[g].high);
      epilogue_.store<kFinished>(rows, ManyChannelsNeon<kFinished>(channels_, row, count), job_.out, at,
                                 count);
    }

   private:
    const WindowJob& job_;
    const EpilogueS8& channels_;
    const EpilogueNeon epilogue_;
  };
};

}  // namespace

void install_window_neon(WindowKernels& slots) { slots.s8 = window_format<WindowsS8>(false, 8); }

}  // namespace gristmill
