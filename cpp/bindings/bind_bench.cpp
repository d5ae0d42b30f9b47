#include <pybind11/stl.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "array_views.h"
#include "bindings.h"
#include "gil.h"
#include "gristmill/isa.h"
#include "gristmill/parallel.h"
#include "kernel_table.h"

namespace py = pybind11;

namespace gristmill {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<double> time_empty_sections(std::size_t count, std::size_t tasks, py::handle threads) {
  const int most = parse_threads(threads);
  const GilReleased released;
  std::vector<double> seconds(count);
  for (double& one : seconds) {
    const auto start = Clock::now();
    parallel_for(tasks, most, [](std::size_t) {});
    one = seconds_since(start);
  }
  return seconds;
}

/// A section of one task per thread, each of which waits until all have begun: no thread can do another's.
/// Without enough threads the wait ends, and the time shows it.
std::vector<double> time_meetings(std::size_t count, py::handle threads) {
  constexpr std::chrono::milliseconds kPatience{10};
  const int asked = parse_threads(threads), most = asked == 0 ? default_threads() : asked;
  const GilReleased released;
  std::vector<double> seconds(count);
  for (double& one : seconds) {
    std::atomic<int> arrived{0};
    const auto start = Clock::now();
    parallel_for(static_cast<std::size_t>(most), most, [&](std::size_t) {
      arrived.fetch_add(1);
      while (arrived.load() < most && Clock::now() - start < kPatience) {
      }
    });
    one = seconds_since(start);
  }
  return seconds;
}

double time_compute_section(std::size_t tasks, std::uint64_t rounds, py::handle threads) {
  const int most = parse_threads(threads);
  const auto fmas = active_kernels().calibrate.f32_fmas;
  const GilReleased released;
  const auto start = Clock::now();
  parallel_for(tasks, most, [&](std::size_t) {
    std::uint32_t sink = 1;
    fmas(rounds, &sink);
  });
  return seconds_since(start);
}

using Copy = void (*)(const void*, void*, std::size_t);

/// Runs a copy bound over contiguous arrays whose bytes are whole blocks.
void run_copy(Copy copy, const py::array& from, py::array& to, std::size_t in_block, std::size_t out_block,
              bool streaming) {
  if (copy == nullptr) throw Error(ErrorKind::isa, "streaming", "the level has no stores past the caches");
  for (const py::array* array : {&from, static_cast<const py::array*>(&to)})
    if ((array->flags() & py::array::c_style) == 0)
      throw Error(ErrorKind::argument, "source, target", "must be contiguous");
  const auto blocks = static_cast<std::size_t>(from.nbytes()) / in_block;
  if (static_cast<std::size_t>(from.nbytes()) != blocks * in_block ||
      static_cast<std::size_t>(to.nbytes()) != blocks * out_block)
    throw Error(ErrorKind::shape, "source, target",
                "must be whole blocks of " + std::to_string(in_block) + " and " + std::to_string(out_block) +
                    " bytes, as many in both");
  void* target = to.mutable_data();
  if (streaming && reinterpret_cast<std::uintptr_t>(target) % 64 != 0)
    throw Error(ErrorKind::argument, "target", "must be aligned to 64 bytes for stores past the caches");
  const GilReleased released;
  copy(from.data(), target, blocks);
}

void narrow(const py::array& source, py::array target, bool streaming) {
  const CalibrateKernels& kernels = active_kernels().calibrate;
  run_copy(streaming ? kernels.narrow_streaming : kernels.narrow, source, target, kNarrowBlock, kByteBlock,
           streaming);
}

void widen(const py::array& source, py::array target, bool streaming) {
  const CalibrateKernels& kernels = active_kernels().calibrate;
  run_copy(streaming ? kernels.widen_streaming : kernels.widen, source, target, kByteBlock, kNarrowBlock,
           streaming);
}

}  // namespace

void bind_bench(py::module_& m) {
  py::module_ bench = m.def_submodule("bench", "Bounds and stopwatches for benchmarks; not for programs.");
  bench.def("time_empty_sections", time_empty_sections, py::arg("count"), py::arg("tasks"),
            py::arg("threads"), "Seconds of each of `count` parallel sections of empty tasks.");
  bench.def("time_meetings", time_meetings, py::arg("count"), py::arg("threads"),
            "Seconds of each of `count` parallel sections in which all threads must take part.");
  bench.def("time_compute_section", time_compute_section, py::arg("tasks"), py::arg("rounds"),
            py::arg("threads"), "Seconds of a section whose tasks do `rounds` rounds of f32 FMAs each.");
  bench.def("narrow", narrow, py::arg("source"), py::arg("target"), py::arg("streaming"),
            "Move what quantizing f32 to 8 bits must move, 4 bytes in and 1 out, on one core.");
  bench.def("widen", widen, py::arg("source"), py::arg("target"), py::arg("streaming"),
            "Move what dequantizing must move, 1 byte in and 4 out, on one core.");
}

}  // namespace gristmill
