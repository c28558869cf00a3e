// SPDX-License-Identifier: MIT
// What both modules do with arguments and exceptions.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>

#include "compatibility.h"

namespace crfseg {
namespace bindings {

namespace py = pybind11;
using ContiguousFloats = py::array_t<float, py::array::c_style>;

inline void expect(bool condition, const char* message) {
  if (!condition) throw py::value_error(message);
}

// Raises `type(*args)`.
inline void raise(const py::object& type, const py::tuple& args) {
  PyErr_SetObject(type.ptr(), args.ptr());
}

inline Compatibility compatibility_of(const std::optional<ContiguousFloats>& mu, int n_labels) {
  Compatibility out;
  if (!mu) return out;
  expect(mu->shape(0) == n_labels && (mu->ndim() == 1 || mu->shape(1) == n_labels),
         "expected a compatibility of (C,) or (C, C)");
  out.kind = mu->ndim() == 1 ? Compatibility::Kind::vector : Compatibility::Kind::matrix;
  out.values.assign(mu->data(), mu->data() + mu->size());
  return out;
}

}  // namespace bindings
}  // namespace crfseg
