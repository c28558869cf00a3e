// SPDX-License-Identifier: MIT
#include "cpu/regions.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>

#include "memory.h"

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include <sys/mman.h>

namespace crfseg {
namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t usual_region = 16 * huge_page;

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

char* map_region(std::size_t bytes) {
  void* raw = mmap(nullptr, bytes + huge_page, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  char* const start = static_cast<char*>(raw);
  const std::size_t skip =
      (huge_page - reinterpret_cast<std::uintptr_t>(raw) % huge_page) % huge_page;
  if (skip > 0) munmap(start, skip);
  munmap(start + skip + bytes, huge_page - skip);
  madvise(start + skip, bytes, MADV_HUGEPAGE);
  return start + skip;
}

class Region {
 public:
  Region(std::size_t bytes) : bytes_(bytes) { free_[0] = bytes; }

  // Where so many bytes are free, the tightest place, or `bytes()` where they are not.
  std::size_t take(std::size_t bytes) {
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it) {
      if (it->second >= bytes && (best == free_.end() || it->second < best->second)) best = it;
    }
    if (best == free_.end()) return bytes_;
    const auto [at, room] = *best;
    free_.erase(best);
    if (room > bytes) free_[at + bytes] = room - bytes;
    return at;
  }

  void give_back(std::size_t at, std::size_t bytes) {
    auto next = free_.lower_bound(at);
    if (next != free_.end() && at + bytes == next->first) {
      bytes += next->second;
      next = free_.erase(next);
    }
    if (next != free_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == at) {
        before->second += bytes;
        return;
      }
    }
    free_[at] = bytes;
  }

  // Calls f(at, bytes) for every free place.
  template <class F>
  void each_free(F&& f) const {
    for (const auto& [at, bytes] : free_) f(at, bytes);
  }

  std::size_t bytes() const { return bytes_; }
  bool is_empty() const { return free_.size() == 1 && free_.begin()->second == bytes_; }

 private:
  std::size_t bytes_;
  std::map<std::size_t, std::size_t> free_;  // where -> how many bytes
};

// Never destroyed: buffers may outlive static destructors.
std::map<char*, Region>& regions() {
  static auto* const all = new std::map<char*, Region>;
  return *all;
}
std::mutex& regions_mutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}

}  // namespace

void* take_pages(std::size_t bytes) {
  bytes = round_up(bytes, page);
  const std::lock_guard<std::mutex> lock(regions_mutex());
  for (auto& [start, region] : regions()) {
    const std::size_t at = region.take(bytes);
    if (at < region.bytes()) return start + at;
  }
  const std::size_t whole = round_up(std::max(bytes, usual_region), huge_page);
  char* const start = map_region(whole);
  if (start == nullptr) return nullptr;
  return start + regions().emplace(start, Region(whole)).first->second.take(bytes);
}

bool give_back_pages(void* data, std::size_t bytes) noexcept {
  const std::lock_guard<std::mutex> lock(regions_mutex());
  char* const place = static_cast<char*>(data);
  auto it = regions().upper_bound(place);
  if (it == regions().begin()) return false;
  --it;
  const auto at = static_cast<std::size_t>(place - it->first);
  if (at >= it->second.bytes()) return false;
  it->second.give_back(at, round_up(bytes, page));
  if (it->second.is_empty()) {
    munmap(it->first, it->second.bytes());
    regions().erase(it);
  }
  return true;
}

void release_pages(void* data, std::size_t bytes) noexcept {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t first = round_up(begin, page), last = (begin + bytes) / page * page;
  if (first < last)
    madvise(static_cast<char*>(data) + (first - begin), last - first, MADV_DONTNEED);
}

void release_free_pages() noexcept {
  const std::lock_guard<std::mutex> lock(regions_mutex());
  for (auto& [start, region] : regions()) {
    region.each_free([start = start](std::size_t at, std::size_t bytes) {
      const std::size_t first = round_up(at, huge_page);
      const std::size_t last = (at + bytes) / huge_page * huge_page;
      if (first < last) madvise(start + first, last - first, MADV_DONTNEED);
    });
  }
}

void lock_regions() { regions_mutex().lock(); }
void unlock_regions() { regions_mutex().unlock(); }

}  // namespace crfseg

#else

namespace crfseg {

void* take_pages(std::size_t) { return nullptr; }
void release_pages(void*, std::size_t) noexcept {}
bool give_back_pages(void*, std::size_t) noexcept { return false; }
void release_free_pages() noexcept {}
void lock_regions() {}
void unlock_regions() {}

}  // namespace crfseg

#endif
