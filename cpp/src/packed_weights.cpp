#include "packed_weights.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "checked_size.h"
#include "gristmill/error.h"

namespace gristmill {
namespace {

constexpr std::int64_t kMostMagnitude = std::numeric_limits<std::int32_t>::max() / 255;

/// Columns that hold a -128 in any row of any group.
std::vector<std::uint32_t> columns_to_repeat(const WeightView<std::int8_t>& weights) {
  std::vector<bool> found(weights.k);
  for (std::size_t row = 0; row < weights.groups * weights.rows; ++row) {
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

bool pair_fits(int a, int b) { return (a >= 0) != (b >= 0) || std::abs(a) + std::abs(b) <= 128; }

/// Whether no pair of adjacent packed columns can exceed int16 with activations of 255.
bool never_saturates(const WeightView<std::int8_t>& weights, const std::vector<std::uint32_t>& repeated) {
  const std::size_t k = weights.k + repeated.size();
  for (std::size_t row = 0; row < weights.groups * weights.rows; ++row) {
    for (std::size_t i = 0; i + 1 < k; i += 2) {
      if (!pair_fits(split(weights, repeated, row, i), split(weights, repeated, row, i + 1))) return false;
    }
  }
  return true;
}

}  // namespace

WeightSums::WeightSums(const WeightView<std::int8_t>& weights) {
  for (std::size_t row = 0; row < weights.groups * weights.rows; ++row) {
    std::int64_t sum = 0, magnitude = 0;
    for (std::size_t k = 0; k < weights.k; ++k) {
      sum += weights.at(row, k);
      magnitude += std::abs(int{weights.at(row, k)});
    }
    if (magnitude > kMostMagnitude)
      throw Error(ErrorKind::limit, "weights",
                  "the magnitudes of output channel " + std::to_string(row) + " add up to " +
                      std::to_string(magnitude) +
                      "; with activations of 255 an int32 accumulator holds at most " +
                      std::to_string(kMostMagnitude) + ": split the layer along its input channels");
    sums.push_back(static_cast<std::int32_t>(sum));
    magnitudes.push_back(static_cast<std::uint32_t>(magnitude));
  }
}

PackedWeights::PackedWeights(const WeightView<std::int8_t>& weights, WeightSide side,
                             const KernelTable& kernels)
    : groups_(weights.groups), rows_(weights.rows), source_k_(weights.k) {
  if (weights.k > std::numeric_limits<std::uint32_t>::max())
    throw Error(ErrorKind::limit, "weights", "more than 2^32 - 1 weights in a row");
  sums_ = WeightSums(weights);
  repeated_ = columns_to_repeat(weights);
  general_ = &kernels.dense.general;
  variant_ = never_saturates(weights, repeated_) ? &kernels.dense.no_saturation : general_;
  block_ = side == WeightSide::broadcast ? variant_->row_block : variant_->lane_block;
  pack(weights);
}

PackedWeights::PackedWeights(const WeightView<float>& weights, WeightSide side, const KernelTable& kernels)
    : groups_(weights.groups), rows_(weights.rows), source_k_(weights.k) {
  block_ = side == WeightSide::broadcast ? kernels.dense.f32_row_block : kernels.dense.f32_lane_block;
  pack(weights);
}

const char* PackedWeights::variant_name() const {
  if (is_f32()) return "f32";
  return variant_ == general_ ? "s8" : "s8, no pair saturates";
}

const std::byte* PackedWeights::at(std::size_t group, std::size_t row) const {
  const std::size_t group_rows = round_up(rows_, block_);
  return storage_.data<std::byte>() + (group * group_rows + row) * padded_k() * element_size();
}

template <class T>
void PackedWeights::pack(const WeightView<T>& weights) {
  const std::size_t blocks = ceil_div(rows_, block_);
  const std::size_t bytes = checked_product({groups_, blocks, block_, padded_k(), sizeof(T)}, "weights");
  storage_.reserve(bytes);
  if (bytes != 0) std::memset(storage_.data(), 0, bytes);
  constexpr std::size_t kDepth = sizeof(T) == 1 ? 4 : 1;  // consecutive columns side by side
  T* packed = storage_.data<T>();
  for (std::size_t group = 0; group < groups_; ++group) {
    for (std::size_t row = 0; row < rows_; ++row) {
      T* block = packed + (group * blocks + row / block_) * block_ * padded_k();
      for (std::size_t k = 0; k < this->k(); ++k) {
        block[(k / kDepth * block_ + row % block_) * kDepth + k % kDepth] =
            split(weights, repeated_, group * rows_ + row, k);
      }
    }
  }
}

}  // namespace gristmill
