// SPDX-License-Identifier: MIT
// The memory of a device that is none: counted, filled with NaN, and able to run out on demand.
// Behind each piece lies a guard, which shows what was written beyond the end; AddressSanitizer
// has a better one, and finds what is read there as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace emulation {

class Guarded {
 public:
  explicit Guarded(std::size_t bytes);
  ~Guarded();
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  unsigned char* data() const { return data_; }
  void spoil();  // fills it with NaN
  bool is_intact() const;

 private:
  std::size_t bytes_;
  unsigned char* data_;
};

struct HeapCounts {
  std::int64_t pieces = 0, bytes = 0;  // that somebody holds
  std::int64_t asked = 0;              // how often there was an allocation
};
HeapCounts heap_counts();

// Lets the n-th allocation from now fail, the first being 0; negative: none.
void fail_allocation(std::int64_t n);

// Null where it is to fail.
std::shared_ptr<void> allocate(std::size_t bytes);

// Whether nothing was written behind the end of any piece.
bool heap_is_intact();

}  // namespace emulation
