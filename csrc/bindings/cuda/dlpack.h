// SPDX-License-Identifier: MIT
// The exchange format of DLPack (github.com/dmlc/dlpack, dlpack.h 1.0), as far as arrays on devices
// need it.
#pragma once

#include <cstdint>

namespace crfseg {
namespace dlpack {

constexpr std::int32_t cuda_device = 2, cuda_managed = 13;
constexpr std::uint64_t read_only = 1;  // a flag

struct Device {
  std::int32_t type, index;
};

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t n_axes;
  DataType type;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: packed
  std::uint64_t byte_offset;
};

struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

struct Versioned {
  std::uint32_t major, minor;
  void* context;
  void (*deleter)(Versioned*);
  std::uint64_t flags;
  Tensor tensor;
};

}  // namespace dlpack
}  // namespace crfseg
