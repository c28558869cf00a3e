// SPDX-License-Identifier: MIT
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "cpu/dispatch.h"
#include "error.h"
#include "memory.h"

namespace crfseg {
namespace bindings {
namespace {

void bind_errors(py::module_& module) {
  // Never destroyed: they are Python objects, and statics outlive the interpreter.
  static const auto& error = *new py::exception<Error>(module, "Error", PyExc_RuntimeError);
  static const auto& non_finite =
      *new py::exception<NonFiniteFeature>(module, "NonFiniteFeature", PyExc_ValueError);
  static const auto& key_range = *new py::exception<KeyRange>(module, "KeyRange", PyExc_ValueError);
  static const auto& too_large =
      *new py::exception<TooLarge>(module, "TooLarge", PyExc_MemoryError);
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const NonFiniteFeature& e) {
      raise(non_finite, py::make_tuple(e.point, e.axis, e.value));
    } catch (const KeyRange& e) {
      raise(key_range, py::make_tuple(e.axis, e.lo, e.hi));
    } catch (const TooLarge& e) {
      raise(too_large, py::make_tuple(e.bytes));
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
  module.def("set_cache_limit", &set_cache_limit, py::arg("n_bytes"));
  module.def("clear_cache", &clear_cache);
  module.def("cached_bytes", &cached_bytes);
}

}  // namespace bindings
}  // namespace crfseg
