#include "bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "Compiled core of gristmill. Use it through gristmill.kernels.";
  m.attr("__version__") = GRISTMILL_VERSION;
  gristmill::bind_errors(m);
  gristmill::bind_isa(m);
  gristmill::bind_cpu(m);
  gristmill::bind_bench(m);
  gristmill::bind_quantize(m);
  gristmill::bind_sparse(m);
  gristmill::bind_dense(m);
  gristmill::bind_plan(m);
}
