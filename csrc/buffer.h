// SPDX-License-Identifier: MIT
// Uninitialised aligned memory. Unlike std::vector it does not write what it allocates, so pages
// are first touched by the thread that works on them, and nothing is cleared twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "memory.h"

namespace crfseg {

template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>, "Buffer does not run constructors");

 public:
  Buffer() = default;
  explicit Buffer(std::int64_t size) { resize(size); }
  Buffer(Buffer&& other) noexcept
      : block_(std::exchange(other.block_, {})), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(block_, other.block_);
    std::swap(size_, other.size_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { give_back(block_); }

  // Contents are lost unless the size stays as it is. Throws std::bad_alloc.
  void resize(std::int64_t size) {
    if (size == size_) return;
    give_back(std::exchange(block_, {}));
    size_ = 0;
    if (size <= 0) return;
    const auto count = static_cast<std::size_t>(size);
    if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_alloc();
    block_ = take_block(count * sizeof(T));
    size_ = size;
  }

  T* data() { return static_cast<T*>(block_.data); }
  const T* data() const { return static_cast<const T*>(block_.data); }
  std::int64_t size() const { return size_; }
  std::int64_t nbytes() const { return size_ * static_cast<std::int64_t>(sizeof(T)); }
  T& operator[](std::int64_t i) { return data()[i]; }
  const T& operator[](std::int64_t i) const { return data()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }

 private:
  Block block_;
  std::int64_t size_ = 0;
};

// Lets what grows lie where buffers do, so that nothing of it is left behind in malloc's heap.
template <class T>
struct BlockAllocator {
  using value_type = T;

  BlockAllocator() = default;
  template <class U>
  BlockAllocator(const BlockAllocator<U>&) {}

  T* allocate(std::size_t n) {
    if (n > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_alloc();
    return static_cast<T*>(new_block(n * sizeof(T)).data);
  }
  void deallocate(T* data, std::size_t n) noexcept { free_block({data, n * sizeof(T)}); }

  friend bool operator==(const BlockAllocator&, const BlockAllocator&) { return true; }
  friend bool operator!=(const BlockAllocator&, const BlockAllocator&) { return false; }
};

template <class T>
using GrowingBuffer = std::vector<T, BlockAllocator<T>>;

}  // namespace crfseg
