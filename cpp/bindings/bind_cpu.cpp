#include <string>

#include "array_views.h"
#include "bindings.h"
#include "gil.h"
#include "gristmill/calibrate.h"
#include "gristmill/cpu.h"
#include "gristmill/parallel.h"

namespace py = pybind11;

namespace gristmill {
namespace {

py::dict cpu_info() {
  const CpuFeatures& has = cpu_features();
  py::dict features;
  features["avx2"] = has.avx2;
  features["avx512vnni"] = has.avx512vnni;
  features["avx512vbmi"] = has.avx512vbmi;
  features["amx"] = has.amx;
  features["neon"] = has.neon;
  features["neon_dotprod"] = has.neon_dotprod;
  features["neon_i8mm"] = has.neon_i8mm;
  py::list caches;
  for (const CacheInfo& cache : cpu_caches())
    caches.append(py::make_tuple(cache.level, cache.bytes, cache.shared_by));
  py::dict info;
  info["model"] = cpu_model();
  info["features"] = features;
  info["caches"] = caches;
  info["affinity_cores"] = affinity_cores();
  info["quota_cores"] = cgroup_quota_cores();
  info["usable_cores"] = usable_cores();
  return info;
}

py::tuple as_tuple(const Rate& rate) { return py::make_tuple(rate.best, rate.median, rate.repetitions); }

py::dict calibrate_as_dict(const std::string& isa, double seconds) {
  Calibration measured;
  {
    const GilReleased released;
    measured = calibrate(parse_isa(isa), seconds);
  }
  py::list reads;
  for (const ReadBandwidth& read : measured.reads)
    reads.append(py::make_tuple(read.memory, read.buffer_bytes, read.assumed, as_tuple(read.gigabytes)));
  py::dict result;
  result["int8_macs"] = as_tuple(measured.int8_macs);
  result["int8_saturating_macs"] =
      measured.int8_saturating_macs ? py::object(as_tuple(*measured.int8_saturating_macs)) : py::none();
  result["f32_fmas"] = as_tuple(measured.f32_fmas);
  result["reads"] = reads;
  return result;
}

void set_num_threads(const py::object& threads) { set_default_threads(parse_threads(threads)); }

}  // namespace

void bind_cpu(py::module_& m) {
  m.def("cpu_info", cpu_info, "What this machine is; gristmill.cpu.cpu_info() makes it a dataclass.");
  m.def("calibrate", calibrate_as_dict, py::arg("isa"), py::arg("seconds"),
        "Rates of this core at a level, as (best, median, repetitions) in 10^9 per second.");
  m.def("get_num_threads", default_threads, "Threads that calls use when they do not say.");
  m.def("set_num_threads", set_num_threads, py::arg("threads").none(false), "Set get_num_threads().");
  m.def("pool_workers", pool_workers, "Workers alive in this process, callers not counted.");
}

}  // namespace gristmill
