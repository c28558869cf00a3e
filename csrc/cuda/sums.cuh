// SPDX-License-Identifier: MIT
#pragma once

#include "cuda/grid.h"
#include "cuda/numbers.cuh"

namespace crfseg {
namespace cuda {

constexpr std::size_t double_per_thread = block_threads * sizeof(double);

// The sum of n values, in an order that depends on nothing else: one block.
template <class T>
CRFSEG_KERNEL add_up(std::int64_t n, const T* values, double* to, const std::uint32_t* skip) {
  if (skip != nullptr && *skip != 0) return;
  CRFSEG_SHARED(shared);
  double own = 0.0;
  for (std::int64_t i = thread_index(); i < n; i += block_size())
    own += static_cast<double>(values[i]);
  const double sum = sum_of_block(own, reinterpret_cast<double*>(shared));
  if (thread_index() == 0) *to = sum;
}

}  // namespace cuda
}  // namespace crfseg
