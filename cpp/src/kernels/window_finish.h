#pragma once

#include <cstddef>
#include <cstdint>

#include "epilogue_kernels.h"
#include "kernels/window_rows.h"

/// The ends of window kernels, for the x86 levels.
namespace gristmill {
namespace {

/// Level names Vector, Epilogue, ManyChannels and Sum, one or more vectors.
template <class Level>
class FinishWindowS8 {
 public:
  explicit FinishWindowS8(const WindowJob& job)
      : job_(job), channels_(*static_cast<const EpilogueS8*>(job.epilogue)), epilogue_(channels_) {}

  [[gnu::always_inline]] void store(const typename Level::Sum (&sum)[kFinished], std::size_t row,
                                    std::size_t count, std::size_t at) const {
    constexpr int kVectors = kFinished * (sizeof(typename Level::Sum) / sizeof(typename Level::Vector));
    typename Level::Vector vectors[kVectors];
    __builtin_memcpy(vectors, sum, sizeof sum);
    epilogue_.template store<kVectors>(vectors, typename Level::ManyChannels(channels_, row, count), job_.out,
                                       at, count);
  }

 private:
  const WindowJob& job_;
  const EpilogueS8& channels_;
  const typename Level::Epilogue epilogue_;
};

/// Simd is the level's f32 vectors.
template <class Simd>
class FinishWindowF32 {
 public:
  explicit FinishWindowF32(const WindowJob& job)
      : out_(static_cast<float*>(job.out)), epilogue_(*static_cast<const EpilogueF32*>(job.epilogue)) {}

  [[gnu::always_inline]] void store(const typename Simd::Vector (&sum)[kFinished], std::size_t row,
                                    std::size_t count, std::size_t at) const {
    const auto low = Simd::broadcast(&epilogue_.low), high = Simd::broadcast(&epilogue_.high);
    for (int g = 0; g < kFinished && count > 0; ++g) {
      const std::size_t here = count < Simd::kWidth ? count : Simd::kWidth;
      const auto value =
          Simd::clamp(Simd::add(sum[g], Simd::load_first(epilogue_.bias + row, here)), low, high);
      here == Simd::kWidth ? Simd::store(out_ + at, value) : Simd::store_first(out_ + at, value, here);
      row += here, at += here, count -= here;
    }
  }

 private:
  float* out_;
  const EpilogueF32 epilogue_;
};

}  // namespace
}  // namespace gristmill
