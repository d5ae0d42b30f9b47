#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gristmill/error.h"
#include "gristmill/tensor.h"
#include "gristmill/workspace.h"

/// A network made ready to run: a flat list of steps over one arena.
///
/// Shapes are concrete. A step is checked when it is added: element types, shapes, and that every tensor lies
/// within its memory. Running then trusts the plan and does nothing but run its steps in order. What a run
/// needs besides the caller's arrays, the arena and the layers' workspace, is a *run state*; a plan keeps
/// some for the next run, and any number of threads may run one plan at once, each with a state of its own.
namespace gristmill {

/// A tensor's place at run time: the base of a slot, and an offset in bytes.
struct Address {
  std::uint32_t slot;
  std::uintptr_t offset;
};

/// Asked between steps, every now and then, whether a run shall end.
class RunWatch {
 public:
  virtual bool wants_stop() = 0;

 protected:
  ~RunWatch() = default;
};

/// A run's watch, which may be null, and when it was last asked.
class RunPatience {
 public:
  explicit RunPatience(RunWatch* watch) : watch_(watch) {}

  /// Whether the run shall end, or has been ended.
  bool ended();
  /// Whether it has been ended; asks nobody.
  bool has_ended() const { return ended_; }

 private:
  using Clock = std::chrono::steady_clock;

  RunWatch* watch_;
  Clock::time_point asked_ = Clock::now();
  bool ended_ = false;
};

/// Where tensors are during one run, and what the run may use.
struct Frame {
  const std::uintptr_t* bases;  ///< by slot
  int threads;
  Workspace& workspace;
  RunPatience& patience;  ///< for steps that run long and can end early

  template <class T>
  T* at(const Address& address) const {
    return reinterpret_cast<T*>(bases[address.slot] + address.offset);
  }
};

/// A tensor that a step uses, under the name that errors give it.
struct Operand {
  const char* name;
  Tensor tensor;
};

class Plan;

/// One operation of a plan.
class Step {
 public:
  Step() = default;
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;
  virtual ~Step() = default;

  virtual void run(const Frame& frame) const = 0;
  /// What runs, in a word or two: "conv s8 512", "copy transpose".
  virtual std::string kernel() const = 0;

  const std::vector<Operand>& reads() const { return reads_; }
  const std::vector<Operand>& writes() const { return writes_; }
  /// Whether an output may be exactly the memory of an input.
  virtual bool works_in_place() const { return false; }

  /// The plan whose steps this step runs, `repeats()` times; null for all others.
  virtual const Plan* part() const { return nullptr; }
  virtual std::size_t repeats() const { return 1; }
  /// Runs, and adds what was measured to seconds: one for itself, or one for each step of its part.
  virtual void measure(const Frame& frame, std::span<double> seconds) const;

 protected:
  /// Names a tensor to the plan, which checks it when the step is added, and says where it will be.
  Address read(const char* name, const Tensor& tensor);
  Address write(const char* name, const Tensor& tensor);

 private:
  std::vector<Operand> reads_, writes_;
};

using StepPtr = std::unique_ptr<const Step>;

/// Bytes behind the arena's last one that steps may read.
inline constexpr std::size_t kArenaSlack = 64;

class Plan {
 public:
  Plan(std::size_t arena_bytes, std::vector<TensorType> inputs, std::vector<TensorType> outputs);
  ~Plan();
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  /// Appends the step that `make` returns. Errors name the step. Throws Error(argument) once the plan is
  /// frozen.
  template <class Make>
  void add(const std::string& name, const Make& make) {
    try {
      append(name, make());
    } catch (const Error& error) {
      throw error.within(name);
    }
  }

  /// Ends the adding of steps; done before the first run.
  void freeze() noexcept { frozen_ = true; }

  /// Runs all steps of a frozen plan. Arrays are in the order and of the types of inputs() and outputs(),
  /// contiguous, aligned to their elements; outputs overlap nothing. With `seconds`, one for each of
  /// measured_steps(), adds what each takes. Returns false if `watch`, which may be null, ended the run;
  /// outputs are then incomplete.
  bool run(std::span<const void* const> inputs, std::span<void* const> outputs, int threads, RunWatch* watch,
           std::span<double> seconds = {}) const;
  /// The same for a part of a run.
  bool run(std::span<const void* const> inputs, std::span<void* const> outputs, int threads,
           RunPatience& patience, std::span<double> seconds = {}) const;

  /// Steps, those of parts in place of the steps that run them.
  std::size_t measured_steps() const;
  bool frozen() const { return frozen_; }

  std::size_t arena_bytes() const { return arena_bytes_; }
  const std::vector<TensorType>& inputs() const { return inputs_; }
  const std::vector<TensorType>& outputs() const { return outputs_; }
  std::size_t steps() const { return steps_.size(); }
  const std::string& step_name(std::size_t index) const { return steps_[index].name; }
  const Step& step(std::size_t index) const { return *steps_[index].step; }

 private:
  struct RunState;
  class Lease;
  struct NamedStep {
    std::string name;
    StepPtr step;
  };

  void append(const std::string& name, StepPtr step);
  static void run_step(const NamedStep& named, const Frame& frame, std::span<double> seconds);
  void require_within(const Operand& operand) const;
  void require_separate(const Step& step) const;

  /// Idle run states beyond this many are freed.
  static constexpr std::size_t kKeptStates = 16;

  std::size_t arena_bytes_;
  std::vector<TensorType> inputs_, outputs_;
  std::vector<NamedStep> steps_;
  bool frozen_ = false;
  mutable std::array<std::atomic<RunState*>, kKeptStates> idle_{};
};

}  // namespace gristmill
