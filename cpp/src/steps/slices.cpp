#include "gristmill/steps/slices.h"

#include <algorithm>
#include <array>
#include <utility>

#include "gristmill/parallel.h"

namespace gristmill {
namespace {

/// How many slices of that type make up the tensor.
std::size_t slices_of(const Tensor& whole, const TensorType& slice, const char* name) {
  const auto& shape = whole.shape();
  const bool rest_equal = !shape.empty() && shape.size() == slice.shape.size() &&
                          std::equal(shape.begin() + 1, shape.end(), slice.shape.begin() + 1);
  if (whole.dtype() != slice.dtype || !rest_equal)
    throw Error(ErrorKind::shape, name,
                type_text(whole.type) + " does not consist of slices " + type_text(slice));
  const std::size_t extent = shape[0], part = slice.shape[0];
  if (part == 0 || extent == 0 || extent % part != 0)
    throw Error(ErrorKind::shape, name,
                "slices of " + std::to_string(part) + " do not make up " + std::to_string(extent));
  return extent / part;
}

class Slices final : public Step {
 public:
  Slices(std::shared_ptr<const Plan> part, const std::vector<Tensor>& inputs,
         const std::vector<Tensor>& outputs)
      : part_(std::move(part)) {
    if (!part_->frozen()) throw Error(ErrorKind::argument, "part", "takes more steps: freeze it first");
    add_side("inputs", inputs, part_->inputs(), inputs_,
             [this](const Tensor& tensor) { return read("input", tensor); });
    add_side("outputs", outputs, part_->outputs(), outputs_,
             [this](const Tensor& tensor) { return write("output", tensor); });
    if (count_ == 0) throw Error(ErrorKind::argument, "part", "has neither inputs nor outputs");
  }

  void run(const Frame& frame) const override { run_all(frame, {}); }
  void measure(const Frame& frame, std::span<double> seconds) const override { run_all(frame, seconds); }
  std::string kernel() const override { return std::to_string(count_) + " slices"; }
  const Plan* part() const override { return part_.get(); }
  std::size_t repeats() const override { return count_; }

 private:
  struct Sliced {
    Address address;
    std::size_t bytes;  ///< of a slice
  };

  template <class Name>
  void add_side(const char* name, const std::vector<Tensor>& tensors, const std::vector<TensorType>& types,
                std::vector<Sliced>& side, const Name& name_tensor) {
    if (tensors.size() != types.size() || tensors.size() > kMostSliced)
      throw Error(ErrorKind::argument, name,
                  "expected " + std::to_string(types.size()) + " tensors, at most " +
                      std::to_string(kMostSliced) + ", got " + std::to_string(tensors.size()));
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const std::size_t count = slices_of(tensors[i], types[i], name);
      if (count_ != 0 && count != count_)
        throw Error(ErrorKind::shape, name,
                    "number " + std::to_string(i) + " has " + std::to_string(count) + " slices, others " +
                        std::to_string(count_));
      count_ = count;
      side.push_back({name_tensor(tensors[i]), byte_count(types[i], name)});
    }
  }

  void run_all(const Frame& frame, std::span<double> seconds) const {
    const auto threads = static_cast<std::size_t>(frame.threads > 0 ? frame.threads : default_threads());
    const std::size_t dealt = threads > 1 ? count_ / threads * threads : 0;
    if (dealt > 0) run_at_once(frame, threads, dealt, seconds);
    for (std::size_t slice = dealt; slice < count_ && !frame.patience.ended(); ++slice)
      run_slice(frame, slice, frame.threads, frame.patience, seconds);
  }

  /// The first `dealt` slices, each thread one at a time.
  void run_at_once(const Frame& frame, std::size_t threads, std::size_t dealt,
                   std::span<double> seconds) const {
    std::vector<double> each(seconds.size() * threads);
    for (std::size_t first = 0; first < dealt && !frame.patience.ended(); first += threads) {
      const auto body = [&](std::size_t thread) {
        RunPatience endless(nullptr);
        const std::span<double> own = std::span(each).subspan(thread * seconds.size(), seconds.size());
        run_slice(frame, first + thread, 1, endless, own);
      };
      parallel_for(threads, static_cast<int>(threads), body);
    }
    for (std::size_t i = 0; i < each.size(); ++i)
      seconds[i % seconds.size()] += each[i] / static_cast<double>(threads);
  }

  void run_slice(const Frame& frame, std::size_t slice, int threads, RunPatience& patience,
                 std::span<double> seconds) const {
    std::array<const void*, kMostSliced> inputs;
    std::array<void*, kMostSliced> outputs;
    const auto place = [&](const std::vector<Sliced>& side, auto& pointers) {
      std::transform(side.begin(), side.end(), pointers.begin(), [&](const Sliced& sliced) {
        return frame.at<std::byte>(sliced.address) + slice * sliced.bytes;
      });
    };
    place(inputs_, inputs);
    place(outputs_, outputs);
    part_->run({inputs.data(), inputs_.size()}, {outputs.data(), outputs_.size()}, threads, patience,
               seconds);
  }

  std::shared_ptr<const Plan> part_;
  std::size_t count_ = 0;
  std::vector<Sliced> inputs_, outputs_;
};

}  // namespace

StepPtr slices_step(std::shared_ptr<const Plan> part, const std::vector<Tensor>& inputs,
                    const std::vector<Tensor>& outputs) {
  return std::make_unique<const Slices>(std::move(part), inputs, outputs);
}

}  // namespace gristmill
