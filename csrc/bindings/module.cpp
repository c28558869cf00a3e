// SPDX-License-Identifier: MIT
#include "bindings/bindings.h"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The native core of crfseg; see _core.pyi.";
  crfseg::bindings::bind_system(module);
  crfseg::bindings::bind_lattice(module);
  crfseg::bindings::bind_mean_field(module);
  crfseg::bindings::bind_gradients(module);
}
