#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "gristmill/epilogue.h"
#include "gristmill/isa.h"
#include "gristmill/packed_sparse.h"
#include "gristmill/sparse.h"
#include "gristmill/workspace.h"

/// Linear layers and matrix products: y[n, m] = epilogue(sum over k of w[m, k] * x[n, k]).
///
/// The outputs of a row lie side by side, so here the weights are the lane operand, packed once, and the
/// activations are broadcast (dense_kernels.h). Kernels that broadcast from memory read them where they are;
/// for others, and where K is ragged, a call packs them by blocks of rows. It multiplies tiles of rows and
/// lanes that stay in the second-level cache. With one row it streams the weights once.
///
/// Kernels that take coupled weights (dense_kernels.h) are faster, but have the channels in rows. Dense int8
/// weights may be packed for them: a call then runs as in a convolution, with the rows of the batch in the
/// lanes of panels, and outputs are transposed back. Rows that do not fill the lanes take as long as if they
/// did, so that it pays for some batches only.
///
/// Sparse weights always run like this. What is too few rows to fill the lanes of a panel
/// runs by kernels of their own, which have the outputs in their lanes (window_kernels.h), so that the time
/// never falls when a row is added.
namespace gristmill {

class PackedWeights;
class SparseWeights;
struct PackedWindows;

/// A borrowed matrix of weights: w[m, k] is data[m * channel_step + k * k_step].
template <class T>
struct LinearWeights {
  const T* data;
  std::size_t channels, k;
  std::size_t channel_step, k_step;
};

/// Whether calls of so many rows are faster with dense int8 weights that are coupled.
bool batch_pays(std::size_t rows, Isa isa);

/// The weights of a linear layer, packed for one level: their layout is that level's and is never stored.
class PackedLinear {
 public:
  /// Throws Error(limit) if an int32 accumulator could overflow. Calls may have any number of rows, but are
  /// fastest with as many as `call_rows`, or with few.
  PackedLinear(const LinearWeights<std::int8_t>& weights, Isa isa, std::size_t call_rows = 1);
  PackedLinear(const LinearWeights<float>& weights, Isa isa);
  /// Row m of the matrix holds the weights of output m. The kind is quads or blocks for int8 and singles for
  /// f32; else Error(argument).
  PackedLinear(const CsrMatrix<std::int8_t>& weights, SparseKind kind, Isa isa);
  PackedLinear(const CsrMatrix<float>& weights, SparseKind kind, Isa isa);
  ~PackedLinear();
  PackedLinear(PackedLinear&&) noexcept;
  PackedLinear& operator=(PackedLinear&&) noexcept;

  Isa isa() const { return isa_; }
  bool is_f32() const;
  bool is_sparse() const { return sparse_ != nullptr; }
  /// Whether the weights are dense and coupled, for batches.
  bool batched() const { return batched_; }
  /// The sparse format, if it is one.
  std::optional<SparseKind> sparse_kind() const;
  std::size_t out_channels() const;
  std::size_t in_channels() const;
  std::size_t bytes() const;
  /// Multiplications for each row of activations, those of zeros that are executed included.
  std::size_t executed_macs() const;
  const char* variant_name() const;

  /// The one of these that is_sparse() names.
  const PackedWeights& packed() const { return *packed_; }
  const SparseWeights& sparse() const { return *sparse_; }
  /// Sparse weights once more, as kernels for few rows want them in a call of so many.
  const PackedWindows& windows(std::size_t call_rows) const {
    return call_rows == 1 && wide_windows_ ? *wide_windows_ : *windows_;
  }

 private:
  Isa isa_;
  bool batched_ = false;
  std::unique_ptr<const PackedWeights> packed_;
  std::unique_ptr<const SparseWeights> sparse_;
  std::unique_ptr<const PackedWindows> windows_, wide_windows_;
};

/// Activations, contiguous [rows][k].
struct LinearInput {
  const void* data;
  DType type;  ///< u8 or s8 for int8 weights, f32 for f32 weights
  std::size_t rows, k;
  std::int32_t zero_point = 0;
};

/// Writes the whole output [rows][out channels], contiguous, of stage.output(). `residual` has the same shape
/// and is null unless the stage adds one; it may not overlap the output. Runs at the weights' level. Throws
/// Error before anything is written.
void linear(const PackedLinear& weights, const LinearInput& input, const OutputStage& stage,
            const void* residual, void* out, int threads, Workspace& workspace);

}  // namespace gristmill
