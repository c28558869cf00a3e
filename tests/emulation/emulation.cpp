// SPDX-License-Identifier: MIT
#include "emulation.h"

#include <algorithm>
#include <numeric>

#include "../cpp/sanitizers.h"
#include "schedules.h"

namespace emulation {
namespace {

constexpr bool sanitized = has_address_sanitizer || has_thread_sanitizer;

void check_sizes(const char* kernel, std::int64_t blocks, int threads, std::size_t shared_bytes) {
  if (blocks >= 1 && blocks <= 0x7FFFFFFF && threads >= 1 && threads <= 1024 &&
      shared_bytes <= most_shared_bytes) {
    return;
  }
  throw Undefined(kernel, "no device launches " + std::to_string(blocks) + " blocks of " +
                              std::to_string(threads) + " threads that share " +
                              std::to_string(shared_bytes) + " bytes");
}

}  // namespace

Settings& settings() {
  static Settings settings{sanitized ? Schedule::threads : Schedule::fibers, sanitized ? 4 : 0};
  return settings;
}

bool is_sanitized() { return sanitized; }

void shuffle(std::vector<std::int64_t>* order, std::uint64_t seed) {
  for (std::size_t i = order->size(); seed != 0 && i > 1; --i) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    std::swap((*order)[i - 1], (*order)[(seed >> 33) % i]);
  }
}

void barrier(int line) {
  if (waiting == nullptr) throw std::logic_error("a barrier outside of any kernel");
  waiting->wait(line);
}

void launch(const char* kernel, std::int64_t blocks, int threads, std::size_t shared_bytes,
            const std::function<void()>& thread) {
  check_sizes(kernel, blocks, threads, shared_bytes);
  const Settings& set = settings();
  if (set.threads_at_most > 0) threads = std::min(threads, set.threads_at_most);
  Launch launch{kernel,   std::vector<std::int64_t>(static_cast<std::size_t>(blocks)),
                threads,  shared_bytes,
                set.seed, thread};
  std::iota(launch.blocks.begin(), launch.blocks.end(), 0);
  shuffle(&launch.blocks, set.seed);
  set.schedule == Schedule::fibers ? run_fibers(launch) : run_threads(launch);
  if (!heap_is_intact()) throw Undefined(kernel, "writes behind the end of device memory");
}

}  // namespace emulation
