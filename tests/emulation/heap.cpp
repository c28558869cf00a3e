// SPDX-License-Identifier: MIT
#include "heap.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <set>

#include "../cpp/sanitizers.h"

namespace emulation {
namespace {

constexpr std::size_t guard_bytes = has_address_sanitizer ? 0 : 256;
constexpr unsigned char guard_byte = 0xA5;
constexpr std::size_t alignment = 256;

struct Heap {
  std::mutex mutex;
  HeapCounts counts;
  std::int64_t until_failure = -1;
  std::set<const Guarded*> pieces;
};

Heap& heap() {
  static Heap heap;
  return heap;
}

void give_back(Guarded* piece, std::size_t bytes) {
  {
    const std::lock_guard<std::mutex> lock(heap().mutex);
    heap().pieces.erase(piece);
    --heap().counts.pieces;
    heap().counts.bytes -= static_cast<std::int64_t>(bytes);
  }
  delete piece;
}

}  // namespace

Guarded::Guarded(std::size_t bytes) : bytes_(bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes + guard_bytes) != 0) throw std::bad_alloc();
  data_ = static_cast<unsigned char*>(memory);
  spoil();
  std::memset(data_ + bytes, guard_byte, guard_bytes);
}

Guarded::~Guarded() { std::free(data_); }

void Guarded::spoil() { std::memset(data_, 0xFF, bytes_); }

bool Guarded::is_intact() const {
  return std::all_of(data_ + bytes_, data_ + bytes_ + guard_bytes,
                     [](unsigned char byte) { return byte == guard_byte; });
}

HeapCounts heap_counts() {
  const std::lock_guard<std::mutex> lock(heap().mutex);
  return heap().counts;
}

void fail_allocation(std::int64_t n) {
  const std::lock_guard<std::mutex> lock(heap().mutex);
  heap().until_failure = n;
}

std::shared_ptr<void> allocate(std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(heap().mutex);
  ++heap().counts.asked;
  if (heap().until_failure >= 0 && heap().until_failure-- == 0) return nullptr;
  auto* piece = new Guarded(bytes);
  heap().pieces.insert(piece);
  ++heap().counts.pieces;
  heap().counts.bytes += static_cast<std::int64_t>(bytes);
  return {piece->data(), [piece, bytes](void*) { give_back(piece, bytes); }};
}

bool heap_is_intact() {
  const std::lock_guard<std::mutex> lock(heap().mutex);
  return std::all_of(heap().pieces.begin(), heap().pieces.end(),
                     [](const Guarded* piece) { return piece->is_intact(); });
}

}  // namespace emulation
