#pragma once

#include <pybind11/pybind11.h>

/// One function per area, each in bind_<area>.cpp: adds that area's functions and classes to the module.
namespace gristmill {

void bind_bench(pybind11::module_& m);
void bind_cpu(pybind11::module_& m);
void bind_dense(pybind11::module_& m);
void bind_errors(pybind11::module_& m);
void bind_isa(pybind11::module_& m);
void bind_plan(pybind11::module_& m);
void bind_quantize(pybind11::module_& m);
void bind_sparse(pybind11::module_& m);

}  // namespace gristmill
