#include "bindings.h"
#include "gristmill/error.h"

namespace py = pybind11;

namespace gristmill {
namespace {

const char* class_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::argument:
      return "ArgumentError";
    case ErrorKind::dtype:
      return "DTypeError";
    case ErrorKind::shape:
      return "ShapeError";
    case ErrorKind::isa:
      return "IsaError";
    case ErrorKind::limit:
      return "LimitError";
  }
  return "GristmillError";
}

void raise_as_python(const Error& error) {
  const py::object type = py::module_::import("gristmill.errors").attr(class_name(error.kind()));
  const py::object node = error.where().empty() ? py::object(py::none()) : py::str(error.where());
  const py::object value = type(error.reason(), py::arg("node") = node);
  PyErr_SetObject(type.ptr(), value.ptr());
}

}  // namespace

void bind_errors(py::module_&) {
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      raise_as_python(error);
    }
  });
}

}  // namespace gristmill
