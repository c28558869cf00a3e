// SPDX-License-Identifier: MIT
// What kernels say to the machine: the few words of CUDA that they use, each a function or macro of
// ours, so that the same kernels run on the host under tests/emulation. Blocks and grids have one
// dimension; every loop over threads strides by the size of the block, so that any size will do.
// Nothing but blocks' barriers orders threads, and blocks are ordered by nothing but launches.
#pragma once

#include <cstdint>

#include "cuda/half.h"

#if defined(__CUDACC__)

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define CRFSEG_KERNEL static __global__ void
#define CRFSEG_DEVICE static __device__ __forceinline__
// Before CRFSEG_KERNEL: registers are to suffice for so many blocks at once.
#define CRFSEG_AT_ONCE(threads, blocks) __launch_bounds__(threads, blocks)
// A struct of parameters that is indexed at run time stays where the launch put it.
#define CRFSEG_CONSTANT const __grid_constant__
#define CRFSEG_UNROLL _Pragma("unroll")
#define CRFSEG_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define CRFSEG_LAUNCH(kernel, blocks, threads, shared_bytes, stream, ...)               \
  ::crfseg::cuda::prepare_launch(reinterpret_cast<const void*>(kernel), shared_bytes);  \
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared_bytes, \
           static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__);                           \
  ::crfseg::cuda::check_launch(#kernel, stream)

namespace crfseg {
namespace cuda {

CRFSEG_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
CRFSEG_DEVICE int block_size() { return static_cast<int>(blockDim.x); }
CRFSEG_DEVICE std::int64_t block_index() { return blockIdx.x; }
CRFSEG_DEVICE std::int64_t grid_size() { return gridDim.x; }
CRFSEG_DEVICE void block_barrier() { __syncthreads(); }
CRFSEG_DEVICE void atomic_max(std::uint32_t* at, std::uint32_t value) { atomicMax(at, value); }
CRFSEG_DEVICE void atomic_add(std::uint32_t* at, std::uint32_t value) { atomicAdd(at, value); }
// As to_float and to_float16, in one instruction.
CRFSEG_DEVICE float widened(Float16 value) { return __half2float(__ushort_as_half(value.bits)); }
CRFSEG_DEVICE Float16 narrowed(float value) { return {__half_as_ushort(__float2half_rn(value))}; }

}  // namespace cuda
}  // namespace crfseg

#else
#include "emulation.h"
#endif

namespace crfseg {
namespace cuda {

// The first element of a grid-stride loop, and the stride.
CRFSEG_DEVICE std::int64_t grid_first() { return block_index() * block_size() + thread_index(); }
CRFSEG_DEVICE std::int64_t grid_stride() { return grid_size() * block_size(); }

// The sums of what threads before this one, and of what all, give. `room` has an element per
// thread.
CRFSEG_DEVICE std::uint32_t sum_before(std::uint32_t own, std::uint32_t* room,
                                       std::uint32_t* total) {
  const int thread = thread_index(), n = block_size();
  room[thread] = own;
  block_barrier();
  for (int step = 1; step < n; step *= 2) {
    const std::uint32_t left = thread >= step ? room[thread - step] : 0U;
    block_barrier();
    room[thread] += left;
    block_barrier();
  }
  const std::uint32_t before = room[thread] - own;
  *total = room[n - 1];
  block_barrier();
  return before;
}

}  // namespace cuda
}  // namespace crfseg
