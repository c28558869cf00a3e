// SPDX-License-Identifier: MIT
// What the binding files of the module `_cuda` share. Device memory crosses the border as integers:
// addresses, a device and a stream (a cudaStream_t). Nothing here includes CUDA's headers, so that
// the compiler of the rest compiles it. Classes are local to the module, lest it and its emulation,
// in one process, take each other's.
#pragma once

#include <pybind11/typing.h>

#include <cstdint>
#include <optional>
#include <tuple>

#include "bindings/arguments.h"
#include "cuda/runtime.h"
#include "cuda/views.h"

namespace crfseg {
namespace bindings {

using Address = std::uintptr_t;

// Called with a number of bytes; gives an address, and what holds the memory.
using Allocator = py::typing::Callable<py::typing::Tuple<py::int_, py::object>(py::int_)>;

void bind_runtime(py::module_& module);
void bind_lattice(py::module_& module);
void bind_mean_field(py::module_& module);
void bind_gradients(py::module_& module);

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// Address and strides, in elements, of (items, labels, points) of float32.
using Strided = std::tuple<Address, std::int64_t, std::int64_t, std::int64_t>;

template <class T>
cuda::BatchView<T> view_of(const Strided& array) {
  const auto& [address, item, label, point] = array;
  return {at<T>(address), item, label, point};
}

inline cuda::Stream stream_of(Address stream) { return reinterpret_cast<void*>(stream); }

void bind_arrays(py::module_& module);

// Memory from the caller's allocator, or the device's own where there is none.
cuda::Allocate allocate_by(const std::optional<Allocator>& allocator, cuda::Stream stream);

}  // namespace bindings
}  // namespace crfseg
