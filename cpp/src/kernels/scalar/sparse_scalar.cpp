#include "epilogue_scalar.h"
#include "kernels/sparse_rows.h"

namespace gristmill {
namespace {

constexpr std::size_t kLanes = 8;
constexpr std::size_t kRows = 256;

template <class T>
struct Sums {
  T lane[kLanes];
};

struct FinishS8 {
  const SparseJob& job;

  explicit FinishS8(const SparseJob& of) : job(of) {}
  void store(const Sums<std::int32_t>& sum, std::size_t channel) const {
    const auto& epilogue = *static_cast<const EpilogueS8*>(job.epilogue);
    for (std::size_t l = 0; l < job.lanes; ++l)
      store_s8(epilogue, channel, sum.lane[l], job.out, channel * job.out_stride + l);
  }
};

struct FinishF32 {
  const SparseJob& job;

  explicit FinishF32(const SparseJob& of) : job(of) {}
  void store(const Sums<float>& sum, std::size_t channel) const {
    const auto& epilogue = *static_cast<const EpilogueF32*>(job.epilogue);
    auto* out = static_cast<float*>(job.out) + channel * job.out_stride;
    for (std::size_t l = 0; l < job.lanes; ++l) out[l] = finish_f32(epilogue, channel, sum.lane[l]);
    if (epilogue.residual == nullptr) return;
    const float* residual = epilogue.residual + channel * job.out_stride;
    for (std::size_t l = 0; l < job.lanes; ++l)
      out[l] = clamp_f32(out[l] + residual[l], epilogue.sum_low, epilogue.sum_high);
  }
};

struct Quads {
  using Entry = SparseQuad;
  using Element = std::uint8_t;
  using Finish = FinishS8;
  static constexpr std::size_t kLaneBlock = kLanes, kBlockRows = kRows;
  static constexpr int kSets = 1;

  struct Sum : Sums<std::int32_t> {
    void add(const SparseQuad& quad, const std::uint8_t* panel) {
      for (std::size_t i = 0; i < 4; ++i)
        for (std::size_t l = 0; l < kLanes; ++l)
          lane[l] += panel[kOffsetUnit * quad.offset[i] + l] * quad.weight[i];
    }
  };
};

struct Blocks {
  using Entry = SparseBlock;
  using Element = std::uint8_t;
  using Finish = FinishS8;
  static constexpr std::size_t kLaneBlock = kLanes, kBlockRows = kRows;
  static constexpr int kSets = 1;

  struct Sum : Sums<std::int32_t> {
    void add(const SparseBlock& block, const std::uint8_t* panel) {
      for (std::size_t l = 0; l < kLanes; ++l)
        for (std::size_t i = 0; i < 4; ++i)
          lane[l] += panel[kOffsetUnit * block.offset + l * 4 + i] * block.weight[i];
    }
  };
};

struct Singles {
  using Entry = SparseSingle;
  using Element = float;
  using Finish = FinishF32;
  static constexpr std::size_t kLaneBlock = kLanes, kBlockRows = kRows;
  static constexpr int kSets = 1;

  struct Sum : Sums<float> {
    void add(const SparseSingle& single, const float* panel) {
      for (std::size_t l = 0; l < kLanes; ++l) lane[l] += panel[single.offset + l] * single.weight;
    }
  };
};

}  // namespace

void install_sparse_scalar(SparseKernels& slots) {
  slots.quads = sparse_format<Quads>(false);
  slots.blocks = sparse_format<Blocks>(false);
  slots.singles = sparse_format<Singles>(false);
}

}  // namespace gristmill
