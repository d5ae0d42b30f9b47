#include "packed_weights.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "checked_size.h"
#include "gristmill/error.h"
#include "safe_pairs.h"

namespace gristmill {
namespace {

constexpr std::int64_t kMostMagnitude = std::numeric_limits<std::int32_t>::max() / 255;

/// Columns that hold a -128 in any row of any group.
std::vector<std::uint32_t> columns_to_repeat(const WeightView<std::int8_t>& weights) {
  std::vector<bool> found(weights.k);
  for (std::size_t row = 0; row < weights.groups * weights.rows; ++row) {
    if (weights.k_step == 1 && std::memchr(&weights.at(row, 0), 0x80, weights.k) == nullptr) continue;
    for (std::size_t k = 0; k < weights.k; ++k)
      if (weights.at(row, k) == -128) found[k] = true;
  }
  std::vector<std::uint32_t> columns;
  for (std::size_t k = 0; k < weights.k; ++k)
    if (found[k]) columns.push_back(static_cast<std::uint32_t>(k));
  return columns;
}

/// The weight as packed, in packed column k: each -128 is -127 here and -1 in the repeated column.
std::int8_t split(const WeightView<std::int8_t>& weights, const std::vector<std::uint32_t>& repeated,
                  std::size_t row, std::size_t k) {
  if (k < weights.k) return std::max<std::int8_t>(weights.at(row, k), -127);
  return weights.at(row, repeated[k - weights.k]) == -128 ? -1 : 0;
}

float split(const WeightView<float>& weights, const std::vector<std::uint32_t>&, std::size_t row,
            std::size_t k) {
  return weights.at(row, k);
}

/// Packs whole groups of `depth` columns of a block's rows, a cache line of each row at a time; returns their
/// columns. A group is a line or four bytes.
template <class T>
std::size_t copy_block(std::size_t depth, const T* rows, std::size_t row_step, std::size_t columns,
                       std::size_t block, T* to, const KernelTable& kernels) {
  constexpr std::size_t kLine = 64 / sizeof(T);
  const std::size_t whole = columns / depth * depth;
  for (std::size_t first = 0; first < whole; first += kLine, rows += kLine, to += kLine * block) {
    if (depth == kLine) {
      for (std::size_t row = 0; row < block; ++row)
        std::memcpy(to + row * kLine, rows + row * row_step, kLine * sizeof(T));
    } else {
      const std::size_t groups = std::min(whole - first, kLine) / depth;
      kernels.transpose.words({rows, row_step * sizeof(T), to, block * 4, block, groups, 0});
    }
  }
  return whole;
}

/// Whether no pair of packed columns could exceed int16 with activations of 255.
bool all_pairs_fit(const WeightView<std::int8_t>& weights, const std::vector<std::uint32_t>& repeated) {
  const std::size_t k = weights.k + repeated.size();
  for (std::size_t row = 0; row < weights.groups * weights.rows; ++row)
    for (std::size_t i = 0; i + 1 < k; i += 2)
      if (!is_safe_pair(split(weights, repeated, row, i), split(weights, repeated, row, i + 1))) return false;
  return true;
}

}  // namespace

void WeightSums::add_row(std::int64_t sum, std::int64_t magnitude) {
  if (magnitude > kMostMagnitude)
    throw Error(ErrorKind::limit, "weights",
                "the magnitudes of output channel " + std::to_string(sums.size()) + " add up to " +
                    std::to_string(magnitude) +
                    "; with activations of 255 an int32 accumulator holds at most " +
                    std::to_string(kMostMagnitude) + ": split the layer along its input channels");
  sums.push_back(static_cast<std::int32_t>(sum));
  magnitudes.push_back(static_cast<std::uint32_t>(magnitude));
  greatest_magnitude = std::max(greatest_magnitude, magnitudes.back());
}

WeightSums::WeightSums(const WeightView<std::int8_t>& weights, const KernelTable& kernels) {
  std::vector<std::int8_t> gathered(weights.k_step == 1 ? 0 : weights.k);
  for (std::size_t row = 0; row < weights.groups * weights.rows; ++row) {
    const std::int8_t* from = weights.data + row * weights.row_step;
    for (std::size_t k = 0; k < gathered.size(); ++k) gathered[k] = from[k * weights.k_step];
    const WeightTotals totals = kernels.weight.total(weights.k_step == 1 ? from : gathered.data(), weights.k);
    add_row(totals.sum, totals.magnitude);
    least = std::min(least, totals.least);
  }
}

WeightSums::WeightSums(const CsrMatrix<std::int8_t>& weights) {
  for (std::size_t row = 0; row < weights.rows(); ++row) {
    std::int64_t sum = 0, magnitude = 0;
    for (const int weight : weights.row_data(row)) {
      sum += weight;
      magnitude += std::abs(weight);
    }
    add_row(sum, magnitude);
  }
}

PackedWeights::PackedWeights(const WeightView<std::int8_t>& weights, WeightSide side,
                             const KernelTable& kernels)
    : groups_(weights.groups), rows_(weights.rows), source_k_(weights.k) {
  if (weights.k > std::numeric_limits<std::uint32_t>::max())
    throw Error(ErrorKind::limit, "weights", "more than 2^32 - 1 weights in a row");
  sums_ = WeightSums(weights, kernels);
  if (sums_.least == -128) repeated_ = columns_to_repeat(weights);
  general_ = &kernels.dense.general;
  const DenseS8Variant& faster = kernels.dense.no_saturation;
  const bool differs = faster.channels_in_rows.multiply != general_->channels_in_rows.multiply;
  const bool broadcast = side == WeightSide::broadcast;
  variant_ = differs && !broadcast && all_pairs_fit(weights, repeated_) ? &faster : general_;
  const DenseKernel& kernel = broadcast ? general_->channels_in_rows : variant_->channels_in_lanes;
  block_ = broadcast ? kernel.row_block : kernel.lane_block;
  depth_ = broadcast ? kernel.depth : 4;
  k_step_ = kernel.depth;
  pack(weights, kernels);
  if (differs && broadcast) couple(faster, kernels);
}

PackedWeights::PackedWeights(const WeightView<float>& weights, WeightSide side, const KernelTable& kernels)
    : groups_(weights.groups), rows_(weights.rows), source_k_(weights.k) {
  block_ = side == WeightSide::broadcast ? kernels.dense.f32_channels_in_rows.row_block
                                         : kernels.dense.f32_channels_in_lanes.lane_block;
  pack(weights, kernels);
}

const char* PackedWeights::variant_name() const {
  if (is_f32()) return "f32";
  if (variant_ == general_) return "s8";
  return coupled_.cut() ? "s8, saturating sums cut" : "s8, no sum saturates";
}

DenseCouples PackedWeights::couples(std::size_t group, std::size_t row) const {
  if (variant_ == general_) return {};
  return coupled_.at(group * ceil_div(rows_, block_) + row / block_);
}

void PackedWeights::couple(const DenseS8Variant& faster, const KernelTable& kernels) {
  const std::size_t blocks = groups_ * ceil_div(rows_, block_), depth = padded_k() / 4;
  auto* packed = storage_.data<std::int8_t>();
  if (!CoupledWeights::pay(packed, blocks, depth, kernels)) return;
  coupled_ = CoupledWeights(packed, blocks, depth, kernels);
  variant_ = &faster;
}

const std::byte* PackedWeights::at(std::size_t group, std::size_t row) const {
  const std::size_t group_rows = round_up(rows_, block_);
  return storage_.data<std::byte>() + (group * group_rows + row) * padded_k() * element_size();
}

template <class T>
void PackedWeights::pack(const WeightView<T>& weights, const KernelTable& kernels) {
  const std::size_t blocks = ceil_div(rows_, block_), size = block_ * padded_k();
  storage_.reserve(checked_product({groups_, blocks, size, sizeof(T)}, "weights"));
  T* block = storage_.data<T>();
  for (std::size_t group = 0; group < groups_; ++group) {
    for (std::size_t row = 0; row < rows_; row += block_, block += size) {
      const std::size_t first = group * rows_ + row, count = std::min(block_, rows_ - row);
      // Columns that are split or repeated, and what fills up rows and columns, are not copied.
      std::size_t done = 0;
      if (count == block_ && weights.k_step == 1 && repeated_.empty())
        done = copy_block(depth_, &weights.at(first, 0), weights.row_step, source_k_, block_, block, kernels);
      std::fill(block + done * block_, block + size, T{0});
      for (std::size_t r = 0; r < count; ++r)
        for (std::size_t k = done; k < this->k(); ++k)
          block[(k / depth_ * block_ + r) * depth_ + k % depth_] = split(weights, repeated_, first + r, k);
    }
  }
}

}  // namespace gristmill
