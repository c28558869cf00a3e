// SPDX-License-Identifier: MIT
// Memory on huge pages for blocks that are too small for pages of their own: blocks lie side by
// side in regions, which go back to the system when their last block does. Touching a huge page
// for the first time costs a tenth of touching as much memory in small ones; where little of it
// would be used, small ones cost less, time and memory.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>

namespace crfseg {

constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// Which places of a region are free; its memory is not touched.
class Region {
 public:
  explicit Region(std::size_t bytes) : bytes_(bytes) { places_[0] = {bytes, true}; }

  // Takes the tightest place where so many bytes are free; `bytes()` where there is none.
  std::size_t take(std::size_t bytes);
  // Needs no memory itself, so that giving back cannot fail.
  void give_back(std::size_t at) noexcept;

  // Calls f(at, bytes) for every free place.
  template <class F>
  void each_free(F&& f) const {
    for (const auto& [at, place] : places_) {
      if (place.is_free) f(at, place.bytes);
    }
  }

  std::size_t bytes() const { return bytes_; }
  bool is_empty() const { return places_.size() == 1 && places_.begin()->second.is_free; }

 private:
  struct Place {
    std::size_t bytes;
    bool is_free;
  };

  std::size_t bytes_;
  std::map<std::size_t, Place> places_;  // by their begin; no free one is followed by another
};

class Regions {
 public:
  // A block of pages; null where it is small and there is no region with room, or the system has no
  // such memory to give.
  void* take(std::size_t bytes);
  // Whether the block came from here; if so it is given back.
  bool give_back(void* data) noexcept;
  // Huge pages that no block lies on go back to the system; they come again when they are touched.
  void release_free_pages() noexcept;

  // Around a fork, lest a child is born with a lock that nobody will open.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  struct Mapping {
    explicit Mapping(std::size_t bytes) : region(bytes) {}
    // A block that ends there is about to be used.
    void reach(char* start, std::size_t end);

    Region region;
    std::size_t on_huge_pages = 0;  // from its start; the rest would come in small ones
  };

  std::mutex mutex_;
  std::map<char*, Mapping> mappings_;
};

}  // namespace crfseg
