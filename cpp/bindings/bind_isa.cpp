#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings.h"
#include "gristmill/isa.h"

namespace py = pybind11;

namespace gristmill {
namespace {

std::vector<std::string> names(std::span<const Isa> isas) {
  std::vector<std::string> result;
  for (Isa isa : isas) result.emplace_back(isa_name(isa));
  return result;
}

}  // namespace

void bind_isa(py::module_& m) {
  m.def(
      "compiled_isas", [] { return names(compiled_isas()); }, "Levels in this build, lowest first.");
  m.def(
      "supported_isas", [] { return names(supported_isas()); },
      "Compiled levels this machine can run, lowest first.");
  m.def(
      "get_isa", [] { return std::string(isa_name(active_isa())); }, "The active level.");
  m.def(
      "set_isa", [](std::string_view name) { set_active_isa(parse_isa(name)); }, py::arg("name"),
      "Make a supported level the active one.");
}

}  // namespace gristmill
