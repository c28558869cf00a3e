// SPDX-License-Identifier: MIT
// Device arrays that live as long as their owner.
#pragma once

#include <cstdint>
#include <utility>

#include "cuda/runtime.h"

namespace crfseg {
namespace cuda {

template <class T>
class Array {
 public:
  using Element = T;

  Array() = default;
  Array(std::int64_t size, const Allocate& allocate)
      : memory_(allocate(static_cast<std::size_t>(size > 0 ? size : 1) * sizeof(T))), size_(size) {}

  T* data() const { return static_cast<T*>(memory_.get()); }
  std::int64_t size() const { return size_; }
  std::int64_t nbytes() const { return size_ * static_cast<std::int64_t>(sizeof(T)); }
  const Memory& memory() const { return memory_; }
  explicit operator bool() const { return memory_ != nullptr; }

  T read(std::int64_t i, Stream stream) const {
    T value;
    copy_to_host(&value, data() + i, sizeof(T), stream);
    return value;
  }

 private:
  Memory memory_;
  std::int64_t size_ = 0;
};

}  // namespace cuda
}  // namespace crfseg
