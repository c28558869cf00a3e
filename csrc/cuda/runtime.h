// SPDX-License-Identifier: MIT
// What drivers ask of the device, free of CUDA's headers. Everything is ordered by the stream that
// is given; nothing goes to another, and nothing is kept between calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "error.h"

namespace crfseg {
namespace cuda {

using Stream = void*;  // a cudaStream_t

// A call of the CUDA runtime that failed. The context stays usable wherever CUDA leaves it so.
class DeviceError : public Error {
 public:
  DeviceError(const std::string& call, const std::string& why) : Error(call + ": " + why) {}
};

// Device memory did not suffice for this many bytes.
class OutOfDeviceMemory : public Error {
 public:
  explicit OutOfDeviceMemory(std::size_t asked)
      : Error("out of device memory: " + std::to_string(asked) + " bytes were asked for"),
        bytes(asked) {}
  std::size_t bytes;
};

// A point whose features lie out of the bounds that were given, or are not finite.
class OutOfBounds : public Error {
 public:
  explicit OutOfBounds(std::int64_t where)
      : Error("the features of point " + std::to_string(where) + " are out of their bounds"),
        point(where) {}
  std::int64_t point;
};

// The items of a batch and their features take more than the bits of a key.
class TooManyItems : public Error {
 public:
  explicit TooManyItems(std::int64_t n_items)
      : Error("keys cannot tell " + std::to_string(n_items) + " items apart") {}
};

// What was to fit into the room that was given did not.
class NoRoom : public Error {
 public:
  NoRoom(const char* things, std::int64_t too_many)
      : Error("there was no room for " + std::to_string(too_many) + " " + things),
        what_of(things),
        lacking(too_many) {}
  const char* what_of;  // "rows" or "vertices"
  std::int64_t lacking;
};

// Whether there is a device, and if not, why.
struct Availability {
  int n_devices = 0;
  std::string why_not;
};
Availability availability();

// Makes a device current for as long as it lives.
class OnDevice {
 public:
  explicit OnDevice(int device);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_, device_;
};
// Whose memory an address is in.
int device_of(const void* address);

// Device memory that is given back, in the stream's order, once nobody holds it.
using Memory = std::shared_ptr<void>;
// Memory of this many bytes, aligned to 256: from the caller's allocator, or from this one.
using Allocate = std::function<Memory(std::size_t bytes)>;
// Of the current device, which it is given back to whatever is current then.
Allocate stream_allocator(Stream stream);

// What was copied from the host may change or go away at once.
void copy_to_device(void* to, const void* from, std::size_t bytes, Stream stream);
// Waits for what was copied.
void copy_to_host(void* to, const void* from, std::size_t bytes, Stream stream);
void copy_on_device(void* to, const void* from, std::size_t bytes, Stream stream);
void fill_bytes(void* at, int byte, std::size_t bytes, Stream stream);
void synchronize(Stream stream);
void synchronize_device();
// What is put on a stream from now on waits for what is on another.
void order_after(Stream later, Stream earlier);
// Whether the stream is being captured into a graph, when nothing may wait for it.
bool is_capturing(Stream stream);

// How many blocks keep the current device busy in a loop over any number of elements.
int blocks_at_once();
// How much shared memory a block may have on the current device.
std::size_t most_shared_bytes();

void prepare_launch(const void* kernel, std::size_t shared_bytes);
void check_launch(const char* kernel, Stream stream);

}  // namespace cuda
}  // namespace crfseg
