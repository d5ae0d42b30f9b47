#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

#if defined(__GLIBCXX__)
#include <cxxabi.h>
#endif

namespace gristmill {

/// Lets other Python threads run during its life. All bindings release the lock with this class.
///
/// A daemon thread that wants the lock back while the interpreter shuts down never gets it. Up to
/// version 3.13 Python then ends the thread by unwinding its stack, which would stop the process at the first
/// noexcept function, and pybind11's own guard is one. Here such a thread sleeps where it is until the
/// process ends, as it does in Python 3.14 and later: nothing of the dying interpreter is touched.
class GilReleased {
 public:
  GilReleased() : state_(PyEval_SaveThread()) {}
  ~GilReleased() { restore(); }
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

  /// Calls `body`, which must not throw, with the lock held meanwhile.
  template <class Body>
  auto with_lock(const Body& body) {
    restore();
    const auto result = body();
    state_ = PyEval_SaveThread();
    return result;
  }

 private:
  void restore() {
#if defined(__GLIBCXX__)
    try {
      PyEval_RestoreThread(state_);
    } catch (abi::__forced_unwind&) {
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
#else
    PyEval_RestoreThread(state_);
#endif
  }

  PyThreadState* state_;
};

}  // namespace gristmill
