#include "gristmill/plan.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "aligned_buffer.h"

namespace gristmill {
namespace {

constexpr std::chrono::milliseconds kWatchPeriod{20};
constexpr std::uint32_t kArenaSlot = 0, kConstantSlot = 1, kFirstSlot = 2;

/// The arena and constants have a slot each; inputs and outputs alternate.
std::uint32_t slot_of(const Tensor& tensor) {
  if (tensor.place == Place::arena) return kArenaSlot;
  if (tensor.place == Place::constant) return kConstantSlot;
  return kFirstSlot + 2 * static_cast<std::uint32_t>(tensor.index) + (tensor.place == Place::output);
}

/// Constants are absolute: their slot's base is 0.
Address address_of(const Tensor& tensor) {
  const std::uintptr_t base =
      tensor.place == Place::constant ? reinterpret_cast<std::uintptr_t>(tensor.constant.get()) : 0;
  return {slot_of(tensor), base + tensor.offset};
}

std::string element_text(const Tensor& tensor) {
  return type_text(tensor.type) + " at byte " + std::to_string(tensor.offset);
}

}  // namespace

Address Step::read(const char* name, const Tensor& tensor) {
  reads_.push_back({name, tensor});
  return address_of(tensor);
}

Address Step::write(const char* name, const Tensor& tensor) {
  writes_.push_back({name, tensor});
  return address_of(tensor);
}

bool RunPatience::ended() {
  if (ended_ || watch_ == nullptr) return ended_;
  const auto now = Clock::now();
  if (now - asked_ < kWatchPeriod) return false;
  ended_ = watch_->wants_stop();
  asked_ = now;
  return ended_;
}

void Step::measure(const Frame& frame, std::span<double> seconds) const {
  const auto start = std::chrono::steady_clock::now();
  run(frame);
  seconds[0] += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// What one run has to itself.
struct Plan::RunState {
  AlignedBuffer arena;
  Workspace workspace;
  std::vector<std::uintptr_t> bases;
};

/// Takes an idle run state, or makes one, and gives it back.
class Plan::Lease {
 public:
  explicit Lease(const Plan& plan) : plan_(plan) {
    for (auto& slot : plan.idle_) {
      if (slot.load(std::memory_order_relaxed) == nullptr) continue;
      state_.reset(slot.exchange(nullptr, std::memory_order_acquire));
      if (state_) return;
    }
    state_ = std::make_unique<RunState>();
    std::memset(state_->arena.reserve(plan.arena_bytes_ + kArenaSlack), 0, plan.arena_bytes_ + kArenaSlack);
    state_->bases.resize(kFirstSlot + 2 * std::max(plan.inputs_.size(), plan.outputs_.size()));
    state_->bases[kArenaSlot] = reinterpret_cast<std::uintptr_t>(state_->arena.data());
  }
  ~Lease() {
    for (auto& slot : plan_.idle_) {
      RunState* none = nullptr;
      if (!slot.compare_exchange_strong(none, state_.get(), std::memory_order_release,
                                        std::memory_order_relaxed))
        continue;
      static_cast<void>(state_.release());
      return;
    }
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  RunState* operator->() const { return state_.get(); }

 private:
  const Plan& plan_;
  std::unique_ptr<RunState> state_;
};

Plan::Plan(std::size_t arena_bytes, std::vector<TensorType> inputs, std::vector<TensorType> outputs)
    : arena_bytes_(arena_bytes), inputs_(std::move(inputs)), outputs_(std::move(outputs)) {
  byte_count({DType::u8, {arena_bytes}}, "arena");
  for (const TensorType& type : inputs_) byte_count(type, "inputs");
  for (const TensorType& type : outputs_) byte_count(type, "outputs");
}

Plan::~Plan() {
  for (auto& slot : idle_) delete slot.load();
}

void Plan::require_within(const Operand& operand) const {
  const auto& [name, tensor] = operand;
  const std::size_t bytes = byte_count(tensor.type, name);
  if (tensor.place == Place::constant) {
    if (bytes != 0 && tensor.constant == nullptr) throw Error(ErrorKind::argument, name, "has no memory");
    return;
  }
  std::size_t available = arena_bytes_;
  std::string where = "the arena";
  if (tensor.place != Place::arena) {
    const auto& types = tensor.place == Place::input ? inputs_ : outputs_;
    where = tensor.place == Place::input ? "inputs" : "outputs";
    if (tensor.index >= types.size())
      throw Error(
          ErrorKind::argument, name,
          "is number " + std::to_string(tensor.index) + " of " + std::to_string(types.size()) + " " + where);
    available = byte_count(types[tensor.index], name);
  }
  if (tensor.offset > available || bytes > available - tensor.offset)
    throw Error(
        ErrorKind::limit, name,
        element_text(tensor) + " ends beyond the " + std::to_string(available) + " bytes of " + where);
  if (tensor.offset % element_size(tensor.dtype()) != 0)
    throw Error(ErrorKind::argument, name, element_text(tensor) + " is not aligned to its elements");
}

/// Outputs are writable and overlap nothing else that the step uses.
void Plan::require_separate(const Step& step) const {
  const auto& writes = step.writes();
  for (std::size_t i = 0; i < writes.size(); ++i) {
    const Tensor& out = writes[i].tensor;
    if (out.place == Place::input || out.place == Place::constant)
      throw Error(ErrorKind::argument, writes[i].name, "only the arena and outputs can be written");
    const std::size_t out_end = out.offset + byte_count(out.type, writes[i].name);
    const auto require_apart = [&](const Operand& other, bool same_allowed) {
      const Tensor& tensor = other.tensor;
      if (slot_of(tensor) != slot_of(out)) return;
      const std::size_t end = tensor.offset + byte_count(tensor.type, other.name);
      if (tensor.offset >= out_end || out.offset >= end) return;
      if (same_allowed && tensor.offset == out.offset && end == out_end) return;
      throw Error(ErrorKind::argument, writes[i].name, std::string("shares memory with ") + other.name);
    };
    for (const Operand& read : step.reads()) require_apart(read, step.works_in_place());
    for (std::size_t j = 0; j < i; ++j) require_apart(writes[j], false);
  }
}

void Plan::append(const std::string& name, StepPtr step) {
  if (frozen_) throw Error(ErrorKind::argument, "", "a plan that has run takes no more steps");
  for (const Operand& operand : step->reads()) require_within(operand);
  for (const Operand& operand : step->writes()) require_within(operand);
  require_separate(*step);
  steps_.push_back({name, std::move(step)});
}

std::size_t Plan::measured_steps() const {
  std::size_t count = 0;
  for (const NamedStep& named : steps_) {
    const Plan* part = named.step->part();
    count += part == nullptr ? 1 : part->measured_steps();
  }
  return count;
}

/// What only the data can show, such as an index out of range, is an error that names the step.
void Plan::run_step(const NamedStep& named, const Frame& frame, std::span<double> seconds) {
  try {
    seconds.empty() ? named.step->run(frame) : named.step->measure(frame, seconds);
  } catch (const Error& error) {
    throw named.step->part() == nullptr ? error.within(named.name) : error;
  }
}

bool Plan::run(std::span<const void* const> inputs, std::span<void* const> outputs, int threads,
               RunWatch* watch, std::span<double> seconds) const {
  RunPatience patience(watch);
  return run(inputs, outputs, threads, patience, seconds);
}

bool Plan::run(std::span<const void* const> inputs, std::span<void* const> outputs, int threads,
               RunPatience& patience, std::span<double> seconds) const {
  const Lease state(*this);
  for (std::size_t i = 0; i < inputs.size(); ++i)
    state->bases[kFirstSlot + 2 * i] = reinterpret_cast<std::uintptr_t>(inputs[i]);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    state->bases[kFirstSlot + 2 * i + 1] = reinterpret_cast<std::uintptr_t>(outputs[i]);
  const Frame frame{state->bases.data(), threads, state->workspace, patience};
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    if (i != 0 && patience.ended()) return false;
    const Plan* part = steps_[i].step->part();
    const std::size_t measured = seconds.empty() ? 0 : part == nullptr ? 1 : part->measured_steps();
    run_step(steps_[i], frame, seconds.first(measured));
    seconds = seconds.subspan(measured);
  }
  return !patience.has_ended();
}

}  // namespace gristmill
