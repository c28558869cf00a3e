// SPDX-License-Identifier: MIT
// The execution model of CUDA on the host, for the kernels of csrc/cuda: they see what device.h
// says of a device, and memory that is the host's. A launch runs before it returns.
//
// Two schedules. Fibers: the threads of a block take turns at barriers, in an order that a seed
// shuffles, and so do blocks. Threads: those of the system, two blocks at once and ordered by
// nothing, as sanitizers want it; it is chosen where one is compiled in.
//
// What a device would leave undefined is an error here, which launch() throws: threads of a block
// that part at a barrier, and writing behind the end of memory, shared or the device's. What a
// kernel throws comes out of launch() as well. Shared memory starts out as NaN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

#include "cuda/half.h"

#define CRFSEG_KERNEL static void
#define CRFSEG_DEVICE static inline
#define CRFSEG_AT_ONCE(threads, blocks)
#define CRFSEG_CONSTANT const
#define CRFSEG_UNROLL
#define CRFSEG_SHARED(name) unsigned char* name = ::emulation::place.shared
#define CRFSEG_LAUNCH(kernel, blocks, threads, shared_bytes, stream, ...) \
  (void)(stream),                                                         \
      ::emulation::launch(#kernel, blocks, threads, shared_bytes, [&] { kernel(__VA_ARGS__); })

namespace emulation {

constexpr std::size_t most_shared_bytes = std::size_t{48} << 10;

struct Place {
  int thread = 0, block_size = 1;
  std::int64_t block = 0, grid_size = 1;
  unsigned char* shared = nullptr;
};

// Where the thread that runs stands.
inline thread_local Place place;

enum class Schedule { fibers, threads };

struct Settings {
  Schedule schedule;
  int threads_at_most;     // per block, whatever the launch says; 0: what it says
  std::uint64_t seed = 0;  // 0: blocks and threads in order
};
Settings& settings();

// Whether a sanitizer is compiled in, when everything takes its time.
bool is_sanitized();

// A kernel did what no device defines.
class Undefined : public std::logic_error {
 public:
  Undefined(const char* kernel, const std::string& what)
      : std::logic_error(std::string(kernel) + ": " + what) {}
};

// Every thread of the block has to come to the same one, told apart by its line.
void barrier(int line);

void launch(const char* kernel, std::int64_t blocks, int threads, std::size_t shared_bytes,
            const std::function<void()>& thread);

}  // namespace emulation

namespace crfseg {
namespace cuda {

static inline int thread_index() { return emulation::place.thread; }
static inline int block_size() { return emulation::place.block_size; }
static inline std::int64_t block_index() { return emulation::place.block; }
static inline std::int64_t grid_size() { return emulation::place.grid_size; }
static inline void block_barrier(int line = __builtin_LINE()) { emulation::barrier(line); }
static inline void atomic_max(std::uint32_t* at, std::uint32_t value) {
  std::uint32_t now = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (now < value &&
         !__atomic_compare_exchange_n(at, &now, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}
static inline void atomic_add(std::uint32_t* at, std::uint32_t value) {
  __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
static inline float widened(Float16 value) { return to_float(value); }
static inline Float16 narrowed(float value) { return to_float16(value); }

}  // namespace cuda
}  // namespace crfseg
