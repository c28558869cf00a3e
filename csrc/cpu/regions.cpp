// SPDX-License-Identifier: MIT
#include "cpu/regions.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "memory.h"

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include <sys/mman.h>
#include <unistd.h>

namespace crfseg {
namespace {

char* map_region(std::size_t bytes) {
  void* raw =
      mmap(nullptr, bytes + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  char* const start = static_cast<char*>(raw);
  const std::size_t skip =
      (huge_page - reinterpret_cast<std::uintptr_t>(raw) % huge_page) % huge_page;
  if (skip > 0) munmap(start, skip);
  munmap(start + skip + bytes, huge_page - skip);
  madvise(start + skip, bytes, MADV_NOHUGEPAGE);
  return start + skip;
}

void use_huge_pages(char* start, std::size_t bytes) { madvise(start, bytes, MADV_HUGEPAGE); }

void unmap_region(char* start, std::size_t bytes) { munmap(start, bytes); }

// To touch the pages again costs more than so little memory is worth.
constexpr std::size_t least_released = huge_page / 8;

}  // namespace

void release_pages(void* data, std::size_t bytes) noexcept {
  if (bytes < least_released) return;
  static const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t first = round_up(begin, page), last = (begin + bytes) / page * page;
  if (first < last) {
    madvise(static_cast<char*>(data) + (first - begin), last - first, MADV_DONTNEED);
  }
}

}  // namespace crfseg

#else

namespace crfseg {
namespace {

char* map_region(std::size_t) { return nullptr; }
void use_huge_pages(char*, std::size_t) {}
void unmap_region(char*, std::size_t) {}

}  // namespace

void release_pages(void*, std::size_t) noexcept {}

}  // namespace crfseg

#endif

namespace crfseg {
namespace {

constexpr std::size_t unit = 4096;  // what places are rounded up to
constexpr std::size_t usual_region = 16 * huge_page;
// To clear a huge page for less would cost more than the small ones.
constexpr std::size_t least_on_huge_page = huge_page / 8;
// At the end of what is used less of a huge page is enough: where more follows, the rest of it is
// small pages as well.
constexpr std::size_t least_at_end = huge_page / 16;

}  // namespace

std::size_t Region::take(std::size_t bytes) {
  auto best = places_.end();
  for (auto it = places_.begin(); it != places_.end(); ++it) {
    const bool fits = it->second.is_free && it->second.bytes >= bytes;
    if (fits && (best == places_.end() || it->second.bytes < best->second.bytes)) best = it;
  }
  if (best == places_.end()) return bytes_;
  auto& [at, place] = *best;
  if (place.bytes > bytes) {
    places_.emplace_hint(std::next(best), at + bytes, Place{place.bytes - bytes, true});
  }
  place = {bytes, false};
  return at;
}

void Region::give_back(std::size_t at) noexcept {
  auto it = places_.find(at);
  it->second.is_free = true;
  if (it != places_.begin() && std::prev(it)->second.is_free) --it;
  for (auto next = std::next(it); next != places_.end() && next->second.is_free;) {
    it->second.bytes += next->second.bytes;
    next = places_.erase(next);
  }
}

void Regions::Mapping::reach(char* start, std::size_t end) {
  const std::size_t last = (end + huge_page - least_at_end) / huge_page * huge_page;
  if (last <= on_huge_pages) return;
  use_huge_pages(start + on_huge_pages, last - on_huge_pages);
  on_huge_pages = last;
}

void* Regions::take(std::size_t bytes) {
  bytes = round_up(bytes, unit);
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [start, mapping] : mappings_) {
    const std::size_t at = mapping.region.take(bytes);
    if (at < mapping.region.bytes()) {
      mapping.reach(start, at + bytes);
      return start + at;
    }
  }
  if (bytes < least_on_huge_page) return nullptr;
  const std::size_t whole = round_up(std::max(bytes, usual_region), huge_page);
  char* const start = map_region(whole);
  if (start == nullptr) return nullptr;
  Mapping& mapping = mappings_.emplace(start, whole).first->second;
  mapping.region.take(bytes);
  mapping.reach(start, bytes);
  return start;
}

bool Regions::give_back(void* data) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  char* const place = static_cast<char*>(data);
  auto it = mappings_.upper_bound(place);
  if (it == mappings_.begin()) return false;
  --it;
  char* const start = it->first;
  Region& region = it->second.region;
  const auto at = static_cast<std::size_t>(place - start);
  if (at >= region.bytes()) return false;
  region.give_back(at);
  if (region.is_empty()) {
    unmap_region(start, region.bytes());
    mappings_.erase(it);
  }
  return true;
}

void Regions::release_free_pages() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [start, mapping] : mappings_) {
    mapping.region.each_free([start = start](std::size_t at, std::size_t bytes) {
      const std::size_t first = round_up(at, huge_page);
      const std::size_t last = (at + bytes) / huge_page * huge_page;
      if (first < last) release_pages(start + first, last - first);
    });
  }
}

}  // namespace crfseg
