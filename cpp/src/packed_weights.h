#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "aligned_buffer.h"
#include "coupled_weights.h"
#include "gristmill/isa.h"
#include "gristmill/sparse.h"
#include "kernel_table.h"

/// Weights in the order in which a level's dense kernels read them, packed once and used by every call.
///
/// A layer has `groups` matrices of rows x k. Each is packed by itself as the broadcast or the lane operand
/// of dense_kernels.h:
///
///     s8    [groups][channel blocks][ceil(k/depth)][block][depth]
///     f32   [groups][channel blocks][k][block]
///
/// where depth is that of the kernel's broadcast operand, or 4 in a lane operand.
///
/// Kernels take int8 weights in [-127, 127]. A weight of -128 is split exactly into -127 and -1: its column
/// of the matrix is repeated at the end of k, zero but for the -1, and the activations repeat the matching
/// row. Almost no network has one; those that do pay for the columns concerned.
///
/// Where a level has a faster kernel for weights of which no sum saturates, those of the broadcast side are
/// brought into that form if it pays: see DenseCouples.
///
/// Accumulators are int32. A row may have bias + 255 * sum|w| at most 2^31 - 1, which no choice of
/// activations or zero points can then exceed; wider rows are refused when packed.
namespace gristmill {

/// A borrowed weight array: element (group g, row r, column k) is data[(g * rows + r) * row_step + k *
/// k_step].
template <class T>
struct WeightView {
  const T* data;
  std::size_t groups, rows, k;
  std::size_t row_step, k_step;
  const T& at(std::size_t row, std::size_t column) const { return data[row * row_step + column * k_step]; }
};

/// For each row of int8 weights, the sum and the sum of magnitudes. Throws Error(limit) if a row lets an
/// accumulator overflow.
struct WeightSums {
  std::vector<std::int32_t> sums;
  std::vector<std::uint32_t> magnitudes;
  std::uint32_t greatest_magnitude = 0;
  std::int8_t least = 0;  ///< weight of all, or 0; of a dense matrix only
  WeightSums(const WeightView<std::int8_t>& weights, const KernelTable& kernels);
  explicit WeightSums(const CsrMatrix<std::int8_t>& weights);
  WeightSums() = default;

 private:
  void add_row(std::int64_t sum, std::int64_t magnitude);
};

/// Which operand of a dense kernel the weights are.
enum class WeightSide : std::uint8_t { broadcast, lane };

class PackedWeights {
 public:
  /// Throws Error(limit) if a row's sum of magnitudes lets an accumulator overflow.
  PackedWeights(const WeightView<std::int8_t>& weights, WeightSide side, const KernelTable& kernels);
  PackedWeights(const WeightView<float>& weights, WeightSide side, const KernelTable& kernels);

  bool is_f32() const { return variant_ == nullptr; }
  std::size_t groups() const { return groups_; }
  std::size_t rows() const { return rows_; }  ///< per group
  std::size_t channels() const { return groups_ * rows_; }
  std::size_t source_k() const { return source_k_; }
  /// Columns of the matrix as packed: source_k() and the repeated ones.
  std::size_t k() const { return source_k_ + repeated_.size(); }
  /// The column of the source that packed column source_k() + i repeats.
  const std::vector<std::uint32_t>& repeated() const { return repeated_; }
  /// Rounded up to whole groups of the kernel's depth for s8.
  std::size_t padded_k() const { return (k() + k_step_ - 1) / k_step_ * k_step_; }
  std::size_t block() const { return block_; }  ///< channels in a block
  std::size_t element_size() const { return is_f32() ? sizeof(float) : 1; }
  std::size_t bytes() const { return storage_.bytes() + coupled_.bytes(); }

  /// The way of multiplying s8 weights that they were packed for.
  const DenseS8Variant& variant() const { return *variant_; }
  const char* variant_name() const;
  /// Whether they are of the broadcast side and for the kernels that take DenseCouples.
  bool is_coupled() const { return coupled_.bytes() != 0; }

  /// The block that starts with this row of the group; `row` is a multiple of block().
  const std::byte* at(std::size_t group, std::size_t row) const;

  /// The couples of the row blocks from that one on.
  DenseCouples couples(std::size_t group, std::size_t row) const;

  /// Of the channels of all groups; empty for f32.
  const WeightSums& sums() const { return sums_; }

 private:
  template <class T>
  void pack(const WeightView<T>& weights, const KernelTable& kernels);
  void couple(const DenseS8Variant& faster, const KernelTable& kernels);

  std::size_t groups_, rows_, source_k_, block_ = 0;
  std::size_t depth_ = 1, k_step_ = 1;  // columns that lie side by side, and those that k is a multiple of
  std::vector<std::uint32_t> repeated_;
  const DenseS8Variant* variant_ = nullptr;
  const DenseS8Variant* general_ = nullptr;
  AlignedBuffer storage_;
  CoupledWeights coupled_;
  WeightSums sums_;
};

}  // namespace gristmill
