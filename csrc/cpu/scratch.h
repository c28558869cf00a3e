// SPDX-License-Identifier: MIT
// Memory that tasks borrow: as many pieces as threads are at work, handed from task to task.
#pragma once

#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "buffer.h"

namespace crfseg {

class Scratch {
 public:
  class Loan {
   public:
    Loan(Scratch* owner, Buffer<float> memory) : owner_(owner), memory_(std::move(memory)) {}
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    ~Loan() { owner_->give_back(std::move(memory_)); }
    float* data() { return memory_.data(); }

   private:
    Scratch* owner_;
    Buffer<float> memory_;
  };

  explicit Scratch(std::int64_t size) : size_(size) {}

  Loan borrow() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!free_.empty()) {
        Buffer<float> memory = std::move(free_.back());
        free_.pop_back();
        return Loan(this, std::move(memory));
      }
      free_.reserve(++n_lent_);  // giving back must not need memory
    }
    return Loan(this, Buffer<float>(size_));
  }

 private:
  void give_back(Buffer<float> memory) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(memory));
  }

  std::int64_t size_;
  std::size_t n_lent_ = 0;
  std::mutex mutex_;
  std::vector<Buffer<float>> free_;
};

}  // namespace crfseg
