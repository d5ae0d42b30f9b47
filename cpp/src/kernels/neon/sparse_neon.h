#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/neon/epilogue_neon.h"
#include "kernels/sparse_rows.h"
#include "kernels/unroll.h"

/// What the sparse int8 kernels of the NEON levels share.
namespace gristmill {
namespace {

constexpr std::size_t kSparseLanes = 32;
constexpr std::size_t kSparseRows = 768;  // 24 KiB of panel

/// Sends the sums of a row through the epilogue.
class FinishS8Neon {
 public:
  explicit FinishS8Neon(const SparseJob& job)
      : job_(job), channels_(*static_cast<const EpilogueS8*>(job.epilogue)), epilogue_(channels_) {}

  [[gnu::always_inline]] void store(const int32x4_t (&sum)[kSparseLanes / 4], std::size_t channel) const {
    epilogue_.store<kSparseLanes / 4>(sum, OneChannelNeon(channels_, channel), job_.out,
                                      channel * job_.out_stride, job_.lanes);
  }

 private:
  const SparseJob& job_;
  const EpilogueS8& channels_;
  const EpilogueNeon epilogue_;
};

}  // namespace
}  // namespace gristmill
