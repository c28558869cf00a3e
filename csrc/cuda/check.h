// SPDX-License-Identifier: MIT
#pragma once

#include <cuda_runtime.h>

#include "cuda/runtime.h"

namespace crfseg {
namespace cuda {

// Throws what a call of the runtime reports, and clears it, so that the next call is not blamed.
inline void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw DeviceError(call, cudaGetErrorString(status));
}

}  // namespace cuda
}  // namespace crfseg
