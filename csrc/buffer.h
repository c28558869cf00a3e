// SPDX-License-Identifier: MIT
// Uninitialised aligned memory. Unlike std::vector it does not write what it allocates, so pages
// are first touched by the thread that works on them, and nothing is cleared twice.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

namespace crfseg {

template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>, "Buffer does not run constructors");

 public:
  static constexpr std::size_t alignment = 64;  // a cache line, and the widest vector
  static constexpr std::size_t huge_page = std::size_t{1} << 21;

  Buffer() = default;
  explicit Buffer(std::int64_t size) { resize(size); }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  // Contents are lost unless the size stays as it is. Throws std::bad_alloc.
  void resize(std::int64_t size) { allocate(size, true); }

  // As resize, for what will be touched in part: pages stay small.
  void reserve(std::int64_t size) { allocate(size, false); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::int64_t size() const { return size_; }
  std::int64_t nbytes() const { return size_ * static_cast<std::int64_t>(sizeof(T)); }
  T& operator[](std::int64_t i) { return data_[i]; }
  const T& operator[](std::int64_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }

 private:
  void allocate(std::int64_t size, bool huge) {
    if (size == size_) return;
    std::free(std::exchange(data_, nullptr));
    size_ = 0;
    if (size <= 0) return;
    const auto count = static_cast<std::size_t>(size);
    if (count > (std::numeric_limits<std::size_t>::max() - huge_page) / sizeof(T)) {
      throw std::bad_alloc();
    }
    const std::size_t bytes = count * sizeof(T);
    const std::size_t boundary = !huge || bytes < 8 * huge_page ? alignment : huge_page;
    const std::size_t whole = (bytes + boundary - 1) / boundary * boundary;
    data_ = static_cast<T*>(std::aligned_alloc(boundary, whole));
    if (data_ == nullptr) throw std::bad_alloc();
    size_ = size;
#if defined(__linux__)
    // Fewer page faults in large buffers, as numpy has it for its arrays. Smaller ones would round
    // memory up by more than it is worth.
    if (boundary == huge_page) madvise(data_, whole, MADV_HUGEPAGE);
#endif
  }

  T* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace crfseg
