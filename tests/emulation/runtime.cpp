// SPDX-License-Identifier: MIT
// csrc/cuda/runtime.h where device memory is the host's.
#include "cuda/runtime.h"

#include <cstring>

#include "emulation.h"
#include "heap.h"

namespace crfseg {
namespace cuda {

Availability availability() { return {1, ""}; }

OnDevice::OnDevice(int) : before_(0) {}
OnDevice::~OnDevice() = default;

Allocate stream_allocator(Stream) {
  return [](std::size_t bytes) {
    Memory memory = emulation::allocate(bytes);
    if (memory == nullptr) throw OutOfDeviceMemory(bytes);
    return memory;
  };
}

void copy_to_device(void* to, const void* from, std::size_t bytes, Stream) {
  std::memcpy(to, from, bytes);
}
void copy_to_host(void* to, const void* from, std::size_t bytes, Stream) {
  std::memcpy(to, from, bytes);
}
void copy_on_device(void* to, const void* from, std::size_t bytes, Stream) {
  std::memcpy(to, from, bytes);
}
void fill_bytes(void* at, int byte, std::size_t bytes, Stream) { std::memset(at, byte, bytes); }
void synchronize(Stream) {}
void synchronize_device() {}
void order_after(Stream, Stream) {}
bool is_capturing(Stream) { return false; }

int blocks_at_once() { return 3; }  // so that loops over blocks are loops
std::size_t most_shared_bytes() { return emulation::most_shared_bytes; }

}  // namespace cuda
}  // namespace crfseg
