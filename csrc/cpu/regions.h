// SPDX-License-Identifier: MIT
// Memory on huge pages for blocks that are too small for pages of their own: blocks lie side by
// side in regions, which go back to the system when their last block does. Touching a huge page
// for the first time costs a tenth of touching as much memory in small ones.
#pragma once

#include <cstddef>

namespace crfseg {

// A block of pages, or null where the system has no such memory to give.
void* take_pages(std::size_t bytes);
// Whether the block came from take_pages; if so it is given back.
bool give_back_pages(void* data, std::size_t bytes) noexcept;
// Huge pages that no block lies on go back to the system; they come again when they are touched.
void release_free_pages() noexcept;

// Around a fork, lest a child is born with a lock that nobody will open.
void lock_regions();
void unlock_regions();

}  // namespace crfseg
