// SPDX-License-Identifier: MIT
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "cpu/dispatch.h"
#include "error.h"

namespace crfseg {
namespace bindings {
namespace {

// Raises `type(*args)`.
void raise(const py::object& type, const py::tuple& args) {
  PyErr_SetObject(type.ptr(), args.ptr());
}

void bind_errors(py::module_& module) {
  static py::exception<Error> error(module, "Error", PyExc_RuntimeError);
  static py::exception<NonFiniteFeature> non_finite(module, "NonFiniteFeature", PyExc_ValueError);
  static py::exception<KeyRange> key_range(module, "KeyRange", PyExc_ValueError);
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const NonFiniteFeature& e) {
      raise(non_finite, py::make_tuple(e.point, e.axis, e.value));
    } catch (const KeyRange& e) {
      raise(key_range, py::make_tuple(e.axis, e.lo, e.hi));
    } catch (const Error& e) {
      raise(error, py::make_tuple(e.what()));
    }
  });
}

}  // namespace

void bind_system(py::module_& module) {
  bind_errors(module);
  module.def("available_isas", &available_isas);
  module.def("isa", [] { return std::string(active_kernels().name); });
  module.def("set_isa", &set_isa, py::arg("name"));
}

}  // namespace bindings
}  // namespace crfseg
