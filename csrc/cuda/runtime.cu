// SPDX-License-Identifier: MIT
#include <cstdlib>

#include "cuda/check.h"
#include "cuda/runtime.h"

namespace crfseg {
namespace cuda {
namespace {

cudaStream_t native(Stream stream) { return static_cast<cudaStream_t>(stream); }

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  return device;
}

int attribute(cudaDeviceAttr which) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, current_device()), "cudaDeviceGetAttribute");
  return value;
}

// Finds the kernel that fails at its launch, where otherwise a later call would be told.
bool waits_after_launches() {
  static const bool waits = [] {
    const char* value = std::getenv("CRFSEG_CUDA_SYNC");
    return value != nullptr && std::string(value) == "1";
  }();
  return waits;
}

}  // namespace

Availability availability() {
  Availability found;
  const cudaError_t status = cudaGetDeviceCount(&found.n_devices);
  if (status != cudaSuccess) {
    cudaGetLastError();
    int driver = 0;
    cudaDriverGetVersion(&driver);
    found.n_devices = 0;
    found.why_not = driver == 0 ? "there is no NVIDIA driver" : cudaGetErrorString(status);
  } else if (found.n_devices == 0) {
    found.why_not = "no CUDA device was found";
  }
  return found;
}

OnDevice::OnDevice(int device) : before_(current_device()), device_(device) {
  if (device_ != before_) check(cudaSetDevice(device_), "cudaSetDevice");
}

OnDevice::~OnDevice() {
  if (device_ != before_) cudaSetDevice(before_);
}

int device_of(const void* address) {
  cudaPointerAttributes found;
  check(cudaPointerGetAttributes(&found, address), "cudaPointerGetAttributes");
  return found.device;
}

Allocate stream_allocator(Stream stream) {
  const int device = current_device();
  return [stream, device](std::size_t bytes) {
    void* memory = nullptr;
    const cudaError_t status = cudaMallocAsync(&memory, bytes > 0 ? bytes : 1, native(stream));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw OutOfDeviceMemory(bytes);
    }
    check(status, "cudaMallocAsync");
    return Memory(memory, [stream, device](void* at) {
      int before = device;
      cudaGetDevice(&before);
      if (before != device) cudaSetDevice(device);  // the default stream is that of the current one
      cudaFreeAsync(at, native(stream));
      if (before != device) cudaSetDevice(before);
    });
  };
}

void copy_to_device(void* to, const void* from, std::size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, native(stream)),
        "cudaMemcpyAsync");
  synchronize(stream);
}

void copy_to_host(void* to, const void* from, std::size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, native(stream)),
        "cudaMemcpyAsync");
  synchronize(stream);
}

void copy_on_device(void* to, const void* from, std::size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, native(stream)),
        "cudaMemcpyAsync");
}

void fill_bytes(void* at, int byte, std::size_t bytes, Stream stream) {
  check(cudaMemsetAsync(at, byte, bytes, native(stream)), "cudaMemsetAsync");
}

void synchronize(Stream stream) {
  check(cudaStreamSynchronize(native(stream)), "cudaStreamSynchronize");
}

void synchronize_device() { check(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }

void order_after(Stream later, Stream earlier) {
  if (later == earlier) return;
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  const cudaError_t recorded = cudaEventRecord(event, native(earlier));
  const cudaError_t waits =
      recorded == cudaSuccess ? cudaStreamWaitEvent(native(later), event, 0) : recorded;
  cudaEventDestroy(event);  // once it has come to pass
  check(waits, recorded == cudaSuccess ? "cudaStreamWaitEvent" : "cudaEventRecord");
}

bool is_capturing(Stream stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(native(stream), &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

int blocks_at_once() { return 8 * attribute(cudaDevAttrMultiProcessorCount); }

std::size_t most_shared_bytes() {
  return static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
}

void prepare_launch(const void* kernel, std::size_t shared_bytes) {
  constexpr std::size_t without_asking = 48 << 10;
  if (shared_bytes <= without_asking) return;
  // The same for all launches: another thread may be launching the kernel with more.
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(most_shared_bytes())),
        "cudaFuncSetAttribute");
}

void check_launch(const char* kernel, Stream stream) {
  check(cudaGetLastError(), kernel);
  if (waits_after_launches() && !is_capturing(stream)) {
    check(cudaStreamSynchronize(native(stream)), kernel);
  }
}

}  // namespace cuda
}  // namespace crfseg
