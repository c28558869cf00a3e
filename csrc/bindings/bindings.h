// SPDX-License-Identifier: MIT
// What the binding files share: one function per topic, and how arrays become views.
#pragma once

#include "bindings/arguments.h"
#include "view.h"

namespace crfseg {
namespace bindings {

using FloatArray = py::array_t<float>;  // strides as they are

void bind_lattice(py::module_& module);
void bind_gradients(py::module_& module);
void bind_mean_field(py::module_& module);
void bind_system(py::module_& module);

inline void raise_pending_signals() {
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// (C, N) arrays of any strides.
inline LabelView<const float> view_of(const FloatArray& array) {
  expect(array.ndim() == 2, "expected a (C, N) array");
  const py::ssize_t item = sizeof(float);
  expect(array.strides(0) % item == 0 && array.strides(1) % item == 0,
         "expected strides of whole floats");
  return {array.data(), array.shape(0), array.shape(1), array.strides(0) / item,
          array.strides(1) / item};
}

}  // namespace bindings
}  // namespace crfseg
