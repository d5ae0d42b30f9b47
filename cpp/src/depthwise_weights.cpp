#include "depthwise_weights.h"

#include <algorithm>

#include "checked_size.h"

namespace gristmill {
namespace {

constexpr std::size_t kMostPlans = 8;

}  // namespace

DepthwiseWeights::DepthwiseWeights(const WeightView<std::int8_t>& weights, ConvKernel kernel,
                                   const KernelTable& kernels)
    : is_f32_(false),
      staged_bytes_(kernels.depthwise.packed_s8_bytes(weights.k)),
      gathered_bytes_(0),
      strips_bytes_(0),
      sums_(weights, kernels) {
  const std::size_t channels = weights.groups * weights.rows;
  staged_.reserve(checked_product({channels, staged_bytes_}, "weights"));
  for (std::size_t m = 0; m < channels; ++m)
    kernels.depthwise.pack_s8(&weights.at(m, 0), weights.k, staged_.data<std::byte>() + m * staged_bytes_);
  const StripsKernelS8& strips = kernels.depthwise.strips_s8;
  if (strips.run != nullptr && kernel.height == 3 && kernel.width == 3) {
    strips_bytes_ = strips.packed_bytes;
    strips_.reserve(checked_product({channels, strips_bytes_}, "weights"));
    for (std::size_t m = 0; m < channels; ++m)
      strips.pack(&weights.at(m, 0), strips_.data<std::byte>() + m * strips_bytes_);
  }
  const std::size_t taps = kernels.depthwise.gather_s8.taps;
  if (kernels.depthwise.gather_s8.run == nullptr) return;
  const std::size_t row_taps = round_up(kernel.width, taps);
  gathered_bytes_ = kernel.height * row_taps * 4 / taps;
  gathered_.reserve(checked_product({channels, gathered_bytes_}, "weights"));
  for (std::size_t i = 0; i < channels * kernel.height * row_taps; ++i) {
    const std::size_t tap = i % row_taps;
    const std::int8_t weight =
        tap < kernel.width ? weights.data[i / row_taps * kernel.width + tap] : std::int8_t{0};
    if (taps == 4)
      gathered_.data<std::int8_t>()[i] = weight;
    else
      gathered_.data<std::int16_t>()[i] = weight;
  }
}

DepthwiseWeights::DepthwiseWeights(const WeightView<float>& weights, ConvKernel, const KernelTable&)
    : is_f32_(true),
      staged_bytes_(weights.k * sizeof(float)),
      gathered_bytes_(staged_bytes_),
      strips_bytes_(staged_bytes_) {
  const std::size_t elements = checked_product({weights.groups, weights.rows, weights.k}, "weights");
  staged_.reserve(checked_product({elements, sizeof(float)}, "weights"));
  std::copy_n(weights.data, elements, staged_.data<float>());
}

std::shared_ptr<const DepthwisePlan> DepthwiseWeights::plan(const DepthwiseGeometry& geometry,
                                                            const GatherKernel& kernel) const {
  if (kernel.run == nullptr) return nullptr;
  const std::lock_guard lock(mutex_);
  const auto same = [&](const KnownPlan& known) { return known.geometry == geometry; };
  auto found = std::find_if(plans_.begin(), plans_.end(), same);
  if (found == plans_.end()) {
    if (plans_.size() == kMostPlans) plans_.pop_back();
    plans_.push_back({geometry, DepthwisePlan::make(geometry, kernel)});
    found = plans_.end() - 1;
  }
  std::rotate(plans_.begin(), found, found + 1);
  return plans_.front().plan;
}

}  // namespace gristmill
