// SPDX-License-Identifier: MIT
#include "bindings/cuda/bindings.h"

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "The native core of crfseg on CUDA devices; see _cuda.pyi.";
  crfseg::bindings::bind_runtime(module);
  crfseg::bindings::bind_arrays(module);
  crfseg::bindings::bind_lattice(module);
  crfseg::bindings::bind_mean_field(module);
  crfseg::bindings::bind_gradients(module);
}
