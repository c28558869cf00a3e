// SPDX-License-Identifier: MIT
#include "buffer.h"

#include <algorithm>

#include "check.h"

using crfseg::Buffer;

namespace {

void memory_is_aligned_and_counted() {
  const std::int64_t huge = crfseg::huge_page / 4;
  Buffer<float> beside(huge + huge / 9);  // all but the smallest may lie in one region with it
  std::fill(beside.begin(), beside.end(), 2.0F);
  for (std::int64_t size :
       {std::int64_t{1}, std::int64_t{15}, std::int64_t{16}, std::int64_t{17}, std::int64_t{1000},
        huge / 64, huge / 8 + 1, huge - 1, huge, huge + 1, 20 * huge}) {
    Buffer<float> buffer(size);
    CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % crfseg::block_alignment == 0);
    CHECK(buffer.size() == size);
    CHECK(buffer.nbytes() == size * 4);
    CHECK(buffer.end() - buffer.begin() == size);
    for (float& value : buffer) value = 1.0F;  // every element is there to be written
  }
  CHECK(std::count(beside.begin(), beside.end(), 2.0F) == beside.size());
}

void empty_buffers_hold_nothing() {
  Buffer<float> never, zero(0), emptied(8);
  emptied.resize(0);
  for (const Buffer<float>* buffer : {&never, &zero, &emptied}) {
    CHECK(buffer->size() == 0);
    CHECK(buffer->data() == nullptr);
  }
}

void moving_hands_the_memory_over() {
  Buffer<int> first(10);
  first[3] = 42;
  const int* memory = first.data();
  Buffer<int> second(std::move(first));
  CHECK(second.data() == memory);
  CHECK(second[3] == 42);
  Buffer<int> third(2);
  third = std::move(second);
  CHECK(third.data() == memory);
  CHECK(third.size() == 10);
}

void resizing_to_the_same_size_keeps_contents() {
  Buffer<int> buffer(4);
  buffer[0] = 7;
  const int* memory = buffer.data();
  buffer.resize(4);
  CHECK(buffer.data() == memory);
  CHECK(buffer[0] == 7);
}

// The byte count of the second would wrap to a small number.
void sizes_that_overflow_throw() {
  Buffer<std::uint64_t> buffer(3);
  CHECK_THROWS(buffer.resize(std::int64_t{1} << 61), std::bad_alloc);
  CHECK(buffer.size() == 0);
  CHECK_THROWS(buffer.resize(std::numeric_limits<std::int64_t>::max()), std::bad_alloc);
  buffer.resize(5);
  CHECK(buffer.size() == 5);
}

}  // namespace

int main() {
  memory_is_aligned_and_counted();
  empty_buffers_hold_nothing();
  moving_hands_the_memory_over();
  resizing_to_the_same_size_keeps_contents();
  sizes_that_overflow_throw();
  return check::result();
}
