#include "epilogue_scalar.h"
#include "kernels/sparse_rows.h"
#include "sparse_kernels.h"

namespace gristmill {
namespace {

constexpr std::size_t kLanes = 8;
constexpr std::size_t kRows = 256;

struct SumS8 {
  std::int32_t lane[kLanes];

  void finish(const SparseJob& job, std::size_t channel) const {
    const auto& epilogue = *static_cast<const EpilogueS8*>(job.epilogue);
    for (std::size_t l = 0; l < job.lanes; ++l)
      store_s8(epilogue, channel, lane[l], job.out, channel * job.out_stride + l);
  }
};

struct Quads {
  using Entry = SparseQuad;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = kLanes, kBlockRows = kRows;

  struct Sum : SumS8 {
    void add(const SparseQuad& quad, const std::uint8_t* panel) {
      for (std::size_t i = 0; i < 4; ++i)
        for (std::size_t l = 0; l < kLanes; ++l) lane[l] += panel[quad.row[i] * kLanes + l] * quad.weight[i];
    }
  };
};

struct Blocks {
  using Entry = SparseBlock;
  using Element = std::uint8_t;
  static constexpr std::size_t kLaneBlock = kLanes, kBlockRows = kRows;

  struct Sum : SumS8 {
    void add(const SparseBlock& block, const std::uint8_t* panel) {
      const std::uint8_t* group = panel + block.group * kLanes * 4;
      for (std::size_t l = 0; l < kLanes; ++l)
        for (std::size_t i = 0; i < 4; ++i) lane[l] += group[l * 4 + i] * block.weight[i];
    }
  };
};

struct Singles {
  using Entry = SparseSingle;
  using Element = float;
  static constexpr std::size_t kLaneBlock = kLanes, kBlockRows = kRows;

  struct Sum {
    float lane[kLanes];

    void add(const SparseSingle& single, const float* panel) {
      for (std::size_t l = 0; l < kLanes; ++l) lane[l] += panel[single.row * kLanes + l] * single.weight;
    }
    void finish(const SparseJob& job, std::size_t channel) const {
      const auto& epilogue = *static_cast<const EpilogueF32*>(job.epilogue);
      auto* out = static_cast<float*>(job.out) + channel * job.out_stride;
      for (std::size_t l = 0; l < job.lanes; ++l) out[l] = finish_f32(epilogue, channel, lane[l]);
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
