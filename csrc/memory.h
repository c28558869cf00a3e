// SPDX-License-Identifier: MIT
// Where buffers get their memory. Pages that the system hands out are cleared when they are first
// touched, which costs as much as many a computation on them: a cache, which is off unless a limit
// is set, keeps blocks that were given back for whoever asks next.
#pragma once

#include <cstddef>
#include <cstdint>

namespace crfseg {

constexpr std::size_t block_alignment = 64;  // a cache line, and the widest vector
constexpr std::size_t huge_page = std::size_t{1} << 21;

struct Block {
  void* data = nullptr;
  std::size_t bytes = 0;
};

// A block of at least so many bytes, their contents undefined. Throws std::bad_alloc.
Block take_block(std::size_t bytes);
void give_back(Block block) noexcept;

// The same past the cache, for what grows and goes within a call.
Block new_block(std::size_t bytes);
void free_block(Block block) noexcept;

// Gives the pages of a range back to the system, unless they are few: what it held is lost.
void release_pages(void* data, std::size_t bytes) noexcept;

// Free memory between blocks is kept for the blocks to come. This gives it back to the system.
void release_free_memory() noexcept;

// How much may be kept at most; 0, as at first, keeps nothing. What is more is freed, oldest first.
void set_cache_limit(std::int64_t bytes);
void clear_cache();
std::int64_t cached_bytes();

}  // namespace crfseg
