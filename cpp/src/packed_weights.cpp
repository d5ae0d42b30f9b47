#include "packed_weights.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "checked_size.h"
#include "gristmill/error.h"

namespace gristmill {
namespace {

constexpr std::int64_t kMostMagnitude = std::numeric_limits<std::int32_t>::max() / 255;
/// As many weights as are summed in int32 at a time.
constexpr std::size_t kSummedBlock = 1 << 16;

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

bool pair_fits(int a, int b) { return (a >= 0) != (b >= 0) || std::abs(a) + std::abs(b) <= 128; }

/// The groups of four packed columns, counted for each block of `block` rows, in which some row has a pair
/// that could exceed int16 with activations of 255.
std::size_t saturating_groups(const WeightView<std::int8_t>& weights,
                              const std::vector<std::uint32_t>& repeated, std::size_t block) {
  const std::size_t k = weights.k + repeated.size();
  std::vector<std::size_t> last_block(ceil_div(k, 4), weights.groups * weights.rows);
  std::size_t count = 0;
  for (std::size_t row = 0; row < weights.groups * weights.rows; ++row) {
    const std::size_t group_row = row % weights.rows, first = row - group_row % block;
    for (std::size_t i = 0; i + 1 < k; i += 2) {
      if (last_block[i / 4] == first) continue;
      if (pair_fits(split(weights, repeated, row, i), split(weights, repeated, row, i + 1))) continue;
      last_block[i / 4] = first;
      ++count;
    }
  }
  return count;
}

/// Of all groups of four columns of all row blocks, the share that may saturate before the faster kernel with
/// its further pass loses to the general one.
constexpr double kMostExcess = 0.1;

bool takes_excess(const WeightView<std::int8_t>& weights, const std::vector<std::uint32_t>& repeated,
                  const DenseS8Variant& variant, WeightSide side) {
  const bool broadcast = side == WeightSide::broadcast;
  const std::size_t block = broadcast ? variant.channels_in_rows.row_block : 1;
  const std::size_t found = saturating_groups(weights, repeated, block);
  const auto groups = static_cast<double>(weights.groups * ceil_div(weights.rows, block) *
                                          ceil_div(weights.k + repeated.size(), 4));
  return static_cast<double>(found) <= (broadcast ? kMostExcess * groups : 0.0);
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
}

WeightSums::WeightSums(const WeightView<std::int8_t>& weights) {
  const auto add = [this, &weights](auto k_step) {
    for (std::size_t row = 0; row < weights.groups * weights.rows; ++row) {
      std::int64_t sum = 0, magnitude = 0;
      for (std::size_t first = 0; first < weights.k; first += kSummedBlock) {
        std::int32_t part = 0, part_magnitude = 0;
        const std::int8_t* from = weights.data + row * weights.row_step;
        for (std::size_t k = first; k < std::min(weights.k, first + kSummedBlock); ++k) {
          part += from[k * k_step];
          part_magnitude += std::abs(int{from[k * k_step]});
        }
        sum += part;
        magnitude += part_magnitude;
      }
      add_row(sum, magnitude);
    }
  };
  if (weights.k_step == 1)
    add(std::integral_constant<std::size_t, 1>{});
  else
    add(weights.k_step);
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
  sums_ = WeightSums(weights);
  repeated_ = columns_to_repeat(weights);
  general_ = &kernels.dense.general;
  const DenseS8Variant& faster = kernels.dense.no_saturation;
  const bool differs = faster.channels_in_rows.multiply != general_->channels_in_rows.multiply;
  const bool cut = differs && takes_excess(weights, repeated_, faster, side);
  variant_ = cut ? &faster : general_;
  block_ = side == WeightSide::broadcast ? variant_->channels_in_rows.row_block
                                         : variant_->channels_in_lanes.lane_block;
  pack(weights);
  if (cut && side == WeightSide::broadcast) cut_excess();
}

PackedWeights::PackedWeights(const WeightView<float>& weights, WeightSide side, const KernelTable& kernels)
    : groups_(weights.groups), rows_(weights.rows), source_k_(weights.k) {
  block_ = side == WeightSide::broadcast ? kernels.dense.f32_channels_in_rows.row_block
                                         : kernels.dense.f32_channels_in_lanes.lane_block;
  pack(weights);
}

const char* PackedWeights::variant_name() const {
  if (is_f32()) return "f32";
  if (variant_ == general_) return "s8";
  return excess_group_.empty() ? "s8, no pair saturates" : "s8, saturating pairs cut";
}

DenseExcess PackedWeights::excess(std::size_t group, std::size_t row) const {
  if (excess_group_.empty()) return {};
  const std::size_t block = group * ceil_div(rows_, block_) + row / block_;
  return {excess_start_.data() + block, excess_group_.data(), excess_weights_.data()};
}

/// Of a pair (a, b) that could saturate, b becomes what 128 leaves beside a.
void PackedWeights::cut_excess() {
  const std::size_t blocks = groups_ * ceil_div(rows_, block_), depth = padded_k() / 4;
  auto* weights = storage_.data<std::int8_t>();
  excess_start_.assign(1, 0);
  for (std::size_t block = 0; block < blocks; ++block) {
    for (std::size_t group = 0; group < depth; ++group, weights += block_ * 4) {
      std::vector<std::int8_t> rest(block_ * 4);
      for (std::size_t i = 0; i < rest.size(); i += 2) {
        const int a = weights[i], b = weights[i + 1];
        if (pair_fits(a, b)) continue;
        const int room = a < 0 ? -128 - a : 128 - a;
        weights[i + 1] = static_cast<std::int8_t>(room);
        rest[i + 1] = static_cast<std::int8_t>(b - room);
      }
      if (std::ranges::all_of(rest, [](std::int8_t w) { return w == 0; })) continue;
      excess_group_.push_back(static_cast<std::uint32_t>(group));
      excess_weights_.insert(excess_weights_.end(), rest.begin(), rest.end());
    }
    excess_start_.push_back(static_cast<std::uint32_t>(excess_group_.size()));
  }
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
  const bool whole_groups = weights.k_step == 1 && repeated_.empty();
  for (std::size_t group = 0; group < groups_; ++group) {
    for (std::size_t row = 0; row < rows_; ++row) {
      T* first = packed + (group * blocks + row / block_) * block_ * padded_k() + row % block_ * kDepth;
      const std::size_t source_row = group * rows_ + row, step = block_ * kDepth;
      std::size_t k = 0;
      if (whole_groups) {
        const T* from = &weights.at(source_row, 0);
        for (; k + kDepth <= source_k_; k += kDepth)
          std::memcpy(first + k / kDepth * step, from + k, kDepth * sizeof(T));
      }
      for (; k < this->k(); ++k)
        first[k / kDepth * step + k % kDepth] = split(weights, repeated_, source_row, k);
    }
  }
}

}  // namespace gristmill
