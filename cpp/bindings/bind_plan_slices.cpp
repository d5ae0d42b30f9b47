#include <pybind11/stl.h>

#include "gristmill/steps/slices.h"
#include "plan_class.h"

namespace py = pybind11;

namespace gristmill {

void bind_slices_step(PlanClass& plan) {
  plan.def(
      "slices",
      [](PlanObject& object, const std::string& name, const std::vector<Tensor>& inputs,
         const std::vector<Tensor>& outputs, const std::shared_ptr<PlanObject>& part) {
        part->plan.freeze();
        object.plan.add(name, [&] { return slices_step({part, &part->plan}, inputs, outputs); });
      },
      py::arg("name"), py::arg("inputs"), py::arg("outputs"), py::arg("part"),
      "Runs another plan, which takes no more steps, for each slice of these tensors along their first "
      "axis.");
}

}  // namespace gristmill
