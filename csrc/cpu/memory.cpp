// SPDX-License-Identifier: MIT
#include "memory.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <new>
#include <vector>

#include "cpu/regions.h"

namespace crfseg {
namespace {

// malloc hands smaller blocks out again by itself. Larger ones it would keep for the thread that
// gave them back.
constexpr std::size_t smallest = std::size_t{1} << 15;

class Cache {
 public:
  // The smallest block that is large enough and not much larger, or none.
  Block take(std::size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto best = blocks_.end();
    for (auto it = blocks_.begin(); it != blocks_.end(); ++it) {
      const bool fits = it->bytes >= bytes && it->bytes - bytes <= bytes / 4;
      if (fits && (best == blocks_.end() || it->bytes < best->bytes)) best = it;
    }
    if (best == blocks_.end()) return {};
    const Block block = *best;
    blocks_.erase(best);
    held_ -= block.bytes;
    return block;
  }

  void keep(Block block) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (block.bytes > limit_) return free_block(block);
    shrink(limit_ - block.bytes);
    try {
      blocks_.push_back(block);
      held_ += block.bytes;
    } catch (const std::bad_alloc&) {
      free_block(block);
    }
  }

  void set_limit(std::size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    limit_ = bytes;
    shrink(bytes);
  }

  void clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    shrink(0);
  }

  std::size_t held() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return held_;
  }

  bool is_on() const { return limit_.load(std::memory_order_relaxed) > 0; }

  // Around a fork, lest a child is born with a lock that nobody will open.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  void shrink(std::size_t most) {
    auto it = blocks_.begin();
    for (; it != blocks_.end() && held_ > most; ++it) {
      held_ -= it->bytes;
      free_block(*it);
    }
    blocks_.erase(blocks_.begin(), it);
  }

  std::mutex mutex_;
  std::atomic<std::size_t> limit_{0};
  std::size_t held_ = 0;
  std::vector<Block> blocks_;  // in the order in which they were given back
};

struct Memory {
  Cache cache;
  Regions regions;

  // In the order in which the cache frees blocks.
  void lock() {
    cache.lock();
    regions.lock();
  }
  void unlock() {
    regions.unlock();
    cache.unlock();
  }
};

// Never destroyed: buffers may outlive static destructors.
Memory& memory = *new Memory;
[[maybe_unused]] const int at_fork =
    pthread_atfork([] { memory.lock(); }, [] { memory.unlock(); }, [] { memory.unlock(); });

}  // namespace

Block new_block(std::size_t bytes) {
  if (bytes > std::numeric_limits<std::size_t>::max() - huge_page) throw std::bad_alloc();
  bytes = round_up(bytes, block_alignment);
  if (bytes >= smallest) {
    void* const pages = memory.regions.take(bytes);
    if (pages != nullptr) return {pages, bytes};
  }
  const Block block{std::aligned_alloc(block_alignment, bytes), bytes};
  if (block.data == nullptr) throw std::bad_alloc();
  return block;
}

void free_block(Block block) noexcept {
  const bool is_small = round_up(block.bytes, block_alignment) < smallest;
  if (is_small || !memory.regions.give_back(block.data)) std::free(block.data);
}

void release_free_memory() noexcept { memory.regions.release_free_pages(); }

Block take_block(std::size_t bytes) {
  if (bytes >= smallest && memory.cache.is_on()) {
    const Block block = memory.cache.take(bytes);
    if (block.data != nullptr) return block;
  }
  return new_block(bytes);
}

void give_back(Block block) noexcept {
  if (block.bytes >= smallest && memory.cache.is_on()) return memory.cache.keep(block);
  free_block(block);
}

void set_cache_limit(std::int64_t bytes) {
  memory.cache.set_limit(static_cast<std::size_t>(std::max<std::int64_t>(bytes, 0)));
}

void clear_cache() { memory.cache.clear(); }

std::int64_t cached_bytes() { return static_cast<std::int64_t>(memory.cache.held()); }

}  // namespace crfseg
