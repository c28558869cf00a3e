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

// malloc hands smaller blocks out again by itself.
constexpr std::size_t smallest_cached = std::size_t{1} << 15;
// To clear a huge page for less would cost more than the small ones.
constexpr std::size_t smallest_on_pages = std::size_t{1} << 18;

std::size_t rounded(std::size_t bytes) {
  return (bytes + block_alignment - 1) / block_alignment * block_alignment;
}

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

// Never destroyed: buffers may outlive static destructors.
Cache& cache() {
  static Cache& instance = [&]() -> Cache& {
    static Cache* created = new Cache;
    const auto open = [] {
      unlock_regions();
      created->unlock();
    };
    pthread_atfork(
        [] {
          created->lock();
          lock_regions();
        },
        open, open);
    return *created;
  }();
  return instance;
}

}  // namespace

Block new_block(std::size_t bytes) {
  if (bytes > std::numeric_limits<std::size_t>::max() - huge_page) throw std::bad_alloc();
  bytes = rounded(bytes);
  if (bytes >= smallest_on_pages) {
    void* const pages = take_pages(bytes);
    if (pages != nullptr) return {pages, bytes};
  }
  const Block block{std::aligned_alloc(block_alignment, bytes), bytes};
  if (block.data == nullptr) throw std::bad_alloc();
  return block;
}

void free_block(Block block) noexcept {
  const std::size_t bytes = rounded(block.bytes);  // as when it was taken
  if (bytes < smallest_on_pages || !give_back_pages(block.data, bytes)) std::free(block.data);
}

void release_free_memory() noexcept { release_free_pages(); }

Block take_block(std::size_t bytes) {
  if (bytes >= smallest_cached && cache().is_on()) {
    const Block block = cache().take(bytes);
    if (block.data != nullptr) return block;
  }
  return new_block(bytes);
}

void give_back(Block block) noexcept {
  if (block.bytes >= smallest_cached && cache().is_on()) return cache().keep(block);
  free_block(block);
}

void set_cache_limit(std::int64_t bytes) {
  cache().set_limit(static_cast<std::size_t>(std::max<std::int64_t>(bytes, 0)));
}

void clear_cache() { cache().clear(); }

std::int64_t cached_bytes() { return static_cast<std::int64_t>(cache().held()); }

}  // namespace crfseg
