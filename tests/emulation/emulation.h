// SPDX-License-Identifier: MIT
// The execution model of CUDA on the host, for the kernels of csrc/cuda: they see what device.h
// says of a device, and memory that is the host's. A launch runs before it returns. By default the
// threads of a block are fibers that take turns at barriers, in an order that a seed shuffles, and
// so are blocks; with real threads (TSan, ASan), blocks are run two at a time.
//
// What a device would leave undefined is an error here: threads of a block that do not meet at the
// same number of barriers. Shared memory starts out as NaN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#define CRFSEG_KERNEL static void
#define CRFSEG_DEVICE static inline
#define CRFSEG_CONSTANT const
#define CRFSEG_UNROLL
#define CRFSEG_SHARED(name) unsigned char* name = ::emulation::here().shared
#define CRFSEG_LAUNCH(kernel, blocks, threads, shared_bytes, stream, ...) \
  (void)(stream),                                                         \
      ::emulation::launch(#kernel, blocks, threads, shared_bytes, [&] { kernel(__VA_ARGS__); })

namespace emulation {

struct Place {
  int thread = 0, block_size = 1;
  std::int64_t block = 0, grid_size = 1;
  unsigned char* shared = nullptr;
};

enum class Schedule { fibers, threads };

struct Settings {
  Schedule schedule = Schedule::fibers;
  std::uint64_t seed = 0;   // 0: blocks and threads in order
  int threads_at_most = 0;  // per block, whatever the launch says; 0: what it says
};

Settings& settings();
const Place& here();
void barrier();
void launch(const char* kernel, std::int64_t blocks, int threads, std::size_t shared_bytes,
            const std::function<void()>& thread);

}  // namespace emulation

namespace crfseg {
namespace cuda {

static inline int thread_index() { return emulation::here().thread; }
static inline int block_size() { return emulation::here().block_size; }
static inline std::int64_t block_index() { return emulation::here().block; }
static inline std::int64_t grid_size() { return emulation::here().grid_size; }
static inline void block_barrier() { emulation::barrier(); }
static inline void atomic_max(std::uint32_t* at, std::uint32_t value) {
  std::uint32_t now = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (now < value &&
         !__atomic_compare_exchange_n(at, &now, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}
static inline void atomic_add(std::uint32_t* at, std::uint32_t value) {
  __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

}  // namespace cuda
}  // namespace crfseg
