// SPDX-License-Identifier: MIT
// Arrays on devices: their exchange with other libraries, and their way to the host and back.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "bindings/cuda/bindings.h"
#include "bindings/cuda/dlpack.h"
#include "cuda/convert.h"

namespace crfseg {
namespace bindings {
namespace {

using Lengths = std::vector<std::int64_t>;

// ---- DLPack

// An array of another library's, for as long as this lives.
class Borrowed {
 public:
  explicit Borrowed(const py::capsule& capsule) {
    if (std::strcmp(capsule.name(), "dltensor_versioned") == 0) {
      auto* managed = capsule.get_pointer<dlpack::Versioned>();
      expect(managed->major == 1, "expected DLPack 1");
      PyCapsule_SetName(capsule.ptr(), "used_dltensor_versioned");
      own(managed);
    } else {
      expect(std::strcmp(capsule.name(), "dltensor") == 0, "expected an array that nobody took");
      auto* managed = capsule.get_pointer<dlpack::Managed>();
      PyCapsule_SetName(capsule.ptr(), "used_dltensor");
      own(managed);
    }
  }

  Address address() const {
    return reinterpret_cast<Address>(static_cast<char*>(tensor_->data) + tensor_->byte_offset);
  }
  Lengths shape() const { return {tensor_->shape, tensor_->shape + tensor_->n_axes}; }
  std::optional<Lengths> strides() const {
    if (tensor_->strides == nullptr) return std::nullopt;
    return Lengths(tensor_->strides, tensor_->strides + tensor_->n_axes);
  }
  std::pair<int, int> device() const { return {tensor_->device.type, tensor_->device.index}; }
  std::tuple<int, int, int> type() const {
    return {tensor_->type.code, tensor_->type.bits, tensor_->type.lanes};
  }

 private:
  template <class T>
  void own(T* managed) {
    owner_ = std::shared_ptr<T>(managed, [](T* m) {
      if (m->deleter != nullptr) m->deleter(m);
    });
    tensor_ = &managed->tensor;
  }

  std::shared_ptr<void> owner_;
  const dlpack::Tensor* tensor_ = nullptr;
};

// Device memory of our own that others may take over.
class Owned {
 public:
  Owned(std::size_t n_bytes, int device, Address stream) : device_(device) {
    const py::gil_scoped_release release;
    const cuda::OnDevice current(device);
    memory_ = cuda::stream_allocator(stream_of(stream))(n_bytes);
  }

  Address address() const { return reinterpret_cast<Address>(memory_.get()); }

  // As a packed array.
  py::capsule lend(const Lengths& shape, int code, int bits) const {
    auto lent = std::make_unique<Lent>();
    lent->memory = memory_;
    lent->shape = shape;
    lent->strides.assign(shape.size(), 1);
    for (std::size_t i = shape.size(); i-- > 1;) {
      lent->strides[i - 1] = lent->strides[i] * std::max<std::int64_t>(1, shape[i]);
    }
    lent->managed.tensor = {memory_.get(),
                            {dlpack::cuda_device, device_},
                            static_cast<std::int32_t>(shape.size()),
                            {static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(bits), 1},
                            lent->shape.data(),
                            lent->strides.data(),
                            0};
    lent->managed.context = lent.get();
    lent->managed.deleter = [](dlpack::Managed* m) { delete static_cast<Lent*>(m->context); };
    const py::capsule capsule(&lent->managed, "dltensor", &give_up);
    lent.release();
    return capsule;
  }

 private:
  struct Lent {
    dlpack::Managed managed;
    cuda::Memory memory;
    Lengths shape, strides;
  };

  // A capsule that nobody took; who took one has renamed it.
  static void give_up(PyObject* capsule) {
    if (PyCapsule_IsValid(capsule, "dltensor") == 0) return;
    auto* managed = static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule, "dltensor"));
    managed->deleter(managed);
  }

  int device_;
  cuda::Memory memory_;
};

void bind_exchange(py::module_& module) {
  py::class_<Borrowed>(module, "Borrowed", py::module_local())
      .def(py::init<const py::capsule&>(), py::arg("capsule"))
      .def_property_readonly("address", &Borrowed::address)
      .def_property_readonly("shape", &Borrowed::shape)
      .def_property_readonly("strides", &Borrowed::strides)
      .def_property_readonly("device", &Borrowed::device)
      .def_property_readonly("type", &Borrowed::type);
  py::class_<Owned>(module, "Owned", py::module_local())
      .def(py::init<std::size_t, int, Address>(), py::arg("n_bytes"), py::arg("device"),
           py::arg("stream"))
      .def_property_readonly("address", &Owned::address)
      .def("lend", &Owned::lend, py::arg("shape"), py::arg("code"), py::arg("bits"));
}

// ---- copies

cuda::ElementType element_type(int type) {
  expect(type >= 0 && type < cuda::n_element_types, "unknown type of elements");
  return static_cast<cuda::ElementType>(type);
}

// (scale, offset, low, high, slack), each one number or one per index along the last axis.
using Map = std::tuple<ContiguousFloats, ContiguousFloats, ContiguousFloats, ContiguousFloats,
                       ContiguousFloats>;

cuda::ChannelMap map_of(const std::optional<Map>& given) {
  cuda::ChannelMap map;
  if (!given) return map;
  const auto& [scale, offset, low, high, slack] = *given;
  map.n = static_cast<int>(scale.size());
  expect(map.n >= 1 && map.n <= cuda::ChannelMap::most, "expected up to 16 channels");
  const auto fill = [&](const ContiguousFloats& values, float* to) {
    expect(values.size() == map.n, "expected as many of all");
    std::copy_n(values.data(), map.n, to);
  };
  fill(scale, map.scale);
  fill(offset, map.offset);
  fill(low, map.low);
  fill(high, map.high);
  fill(slack, map.slack);
  return map;
}

void convert(Address from, int from_type, const Lengths& shape, const Lengths& strides,
             const std::optional<Map>& map, Address to, int to_type, int device, Address stream) {
  expect(shape.size() == strides.size() && shape.size() <= cuda::most_axes,
         "expected up to 6 axes");
  cuda::Strided array;
  array.data = at<const void>(from);
  array.type = element_type(from_type);
  std::copy(shape.rbegin(), shape.rend(), std::reverse_iterator(std::end(array.shape)));
  std::copy(strides.rbegin(), strides.rend(), std::reverse_iterator(std::end(array.strides)));
  const cuda::ElementType type = element_type(to_type);
  const cuda::ChannelMap channels = map_of(map);
  const py::gil_scoped_release release;
  const cuda::OnDevice current(device);
  cuda::convert(array, channels, at<void>(to), type, stream_of(stream));
}

void upload(const py::array& values, Address to, int device, Address stream) {
  expect((values.flags() & py::array::c_style) != 0, "expected a contiguous array");
  const void* from = values.data();
  const auto n_bytes = static_cast<std::size_t>(values.nbytes());
  const py::gil_scoped_release release;
  const cuda::OnDevice current(device);
  cuda::copy_to_device(at<void>(to), from, n_bytes, stream_of(stream));
}

void download(Address from, py::array values, int device, Address stream) {
  expect((values.flags() & py::array::c_style) != 0, "expected a contiguous array");
  void* to = values.mutable_data();
  const auto n_bytes = static_cast<std::size_t>(values.nbytes());
  const py::gil_scoped_release release;
  const cuda::OnDevice current(device);
  cuda::copy_to_host(to, at<const void>(from), n_bytes, stream_of(stream));
}

}  // namespace

void bind_arrays(py::module_& module) {
  bind_exchange(module);
  module.def("convert", &convert, py::arg("source"), py::arg("source_type"), py::arg("shape"),
             py::arg("strides"), py::arg("channel_map").none(true), py::arg("target"),
             py::arg("target_type"), py::arg("device"), py::arg("stream"));
  module.def("upload", &upload, py::arg("values"), py::arg("to"), py::arg("device"),
             py::arg("stream"));
  module.def("download", &download, py::arg("source"), py::arg("values"), py::arg("device"),
             py::arg("stream"));
  module.def(
      "order_after",
      [](Address later, Address earlier, int device) {
        const py::gil_scoped_release release;
        const cuda::OnDevice current(device);
        cuda::order_after(stream_of(later), stream_of(earlier));
      },
      py::arg("later"), py::arg("earlier"), py::arg("device"));
}

}  // namespace bindings
}  // namespace crfseg
