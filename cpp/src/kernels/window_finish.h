#pragma once

#include <cstddef>
#include <cstdint>

#include "epilogue_kernels.h"
#include "window_kernels.h"

/// The ends of window kernels over one vector of sums, for the x86 levels.
namespace gristmill {
namespace {

/// Level names Vector, add, Epilogue and ManyChannels.
template <class Level>
class FinishWindowS8 {
 public:
  explicit FinishWindowS8(const WindowJob& job)
      : job_(job), channels_(*static_cast<const EpilogueS8*>(job.epilogue)), epilogue_(channels_) {}

  [[gnu::always_inline]] void store(typename Level::Vector a, typename Level::Vector b, std::size_t row,
                                    std::size_t count, std::size_t at) const {
    const typename Level::Vector sum = Level::add(a, b);
    epilogue_.template store<1>(&sum, typename Level::ManyChannels(channels_, row, count), job_.out, at,
                                count);
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

  [[gnu::always_inline]] void store(typename Simd::Vector a, typename Simd::Vector b, std::size_t row,
                                    std::size_t count, std::size_t at) const {
    const auto bias = Simd::load_first(epilogue_.bias + row, count);
    const auto low = Simd::broadcast(&epilogue_.low), high = Simd::broadcast(&epilogue_.high);
    const auto value = Simd::clamp(Simd::add(Simd::add(a, b), bias), low, high);
    count == Simd::kWidth ? Simd::store(out_ + at, value) : Simd::store_first(out_ + at, value, count);
  }

 private:
  float* out_;
  const EpilogueF32 epilogue_;
};

}  // namespace
}  // namespace gristmill
