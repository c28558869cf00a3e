// SPDX-License-Identifier: MIT
// How the threads of a launch are run (emulation.h).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "emulation.h"
#include "heap.h"

namespace emulation {

struct Launch {
  const char* kernel;
  std::vector<std::int64_t> blocks;  // in the order in which they are begun
  int n_threads;
  std::size_t shared_bytes;
  std::uint64_t seed;  // for the order of threads
  const std::function<void()>& body;

  Place of(std::int64_t block, int thread, unsigned char* shared) const {
    return {thread, n_threads, block, static_cast<std::int64_t>(blocks.size()), shared};
  }
  void check(const Guarded& shared) const {
    if (!shared.is_intact()) throw Undefined(kernel, "writes behind the end of shared memory");
  }
  [[noreturn]] void part() const {
    throw Undefined(kernel, "threads of a block part at a barrier");
  }
};

// What barriers do for the thread that runs.
class Waiting {
 public:
  virtual ~Waiting() = default;
  virtual void wait(int line) = 0;
};
inline thread_local Waiting* waiting = nullptr;

void shuffle(std::vector<std::int64_t>* order, std::uint64_t seed);

void run_fibers(const Launch& launch);
void run_threads(const Launch& launch);

}  // namespace emulation
