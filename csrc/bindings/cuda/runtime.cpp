// SPDX-License-Identifier: MIT
#include "cuda/runtime.h"

#include <string>
#include <utility>

#include "bindings/cuda/bindings.h"
#include "cuda/storage.h"
#include "error.h"

namespace crfseg {
namespace bindings {
namespace {

void bind_errors(py::module_& module) {
  // Never destroyed: they are Python objects, and statics outlive the interpreter.
  static const auto& error = *new py::exception<Error>(module, "Error", PyExc_RuntimeError);
  static const auto& device_error =
      *new py::exception<cuda::DeviceError>(module, "DeviceError", error.ptr());
  static const auto& no_memory =
      *new py::exception<cuda::OutOfDeviceMemory>(module, "OutOfDeviceMemory", PyExc_MemoryError);
  static const auto& no_room = *new py::exception<cuda::NoRoom>(module, "NoRoom", error.ptr());
  static const auto& too_many_items =
      *new py::exception<cuda::TooManyItems>(module, "TooManyItems", error.ptr());
  static const auto& too_coarse =
      *new py::exception<cuda::TooCoarse>(module, "TooCoarse", error.ptr());
  static const auto& out_of_bounds =
      *new py::exception<cuda::OutOfBounds>(module, "OutOfBounds", PyExc_ValueError);
  static const auto& key_range = *new py::exception<KeyRange>(module, "KeyRange", PyExc_ValueError);
  static const auto& too_large =
      *new py::exception<TooLarge>(module, "TooLarge", PyExc_MemoryError);
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const cuda::OutOfDeviceMemory& e) {
      raise(no_memory, py::make_tuple(e.bytes));
    } catch (const cuda::OutOfBounds& e) {
      raise(out_of_bounds, py::make_tuple(e.point));
    } catch (const cuda::TooManyItems& e) {
      raise(too_many_items, py::make_tuple(e.what()));
    } catch (const cuda::TooCoarse& e) {
      raise(too_coarse, py::make_tuple(e.what()));
    } catch (const cuda::NoRoom& e) {
      raise(no_room, py::make_tuple(e.what_of, e.lacking));
    } catch (const cuda::DeviceError& e) {
      raise(device_error, py::make_tuple(e.what()));
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

cuda::Allocate allocate_by(const std::optional<Allocator>& allocator, cuda::Stream stream) {
  if (!allocator) return cuda::stream_allocator(stream);
  const auto let_go = [](Allocator* held) {
    const py::gil_scoped_acquire acquire;
    delete held;
  };
  const std::shared_ptr<Allocator> shared(new Allocator(*allocator), let_go);
  return [shared](std::size_t bytes) {
    const py::gil_scoped_acquire acquire;
    const py::tuple given = (*shared)(bytes);
    auto* owner = new py::object(given[1]);
    return cuda::Memory(at<void>(given[0].cast<Address>()), [owner](void*) {
      const py::gil_scoped_acquire acquire_again;
      delete owner;
    });
  };
}

void bind_runtime(py::module_& module) {
  bind_errors(module);
  module.def("availability", [] {
    const cuda::Availability found = cuda::availability();
    return std::pair<int, std::string>(found.n_devices, found.why_not);
  });
  module.def(
      "synchronize",
      [](int device) {
        const py::gil_scoped_release release;
        const cuda::OnDevice current(device);
        cuda::synchronize_device();
      },
      py::arg("device"));
  module.def(
      "is_capturing", [](Address stream) { return cuda::is_capturing(stream_of(stream)); },
      py::arg("stream"));
}

}  // namespace bindings
}  // namespace crfseg
