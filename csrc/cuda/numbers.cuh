// SPDX-License-Identifier: MIT
// Numbers of mean-field inference, and sums of them.
#pragma once

#include "cuda/device.h"
#include "math/float_bits.h"

namespace crfseg {
namespace cuda {

constexpr float log_zero = -1e30F;  // the logarithm of a forbidden label, and of padding
constexpr float largest_float = 3.402823466e38F;
constexpr float least_normal = 1.17549435e-38F;

// The sum of what the threads of a block give, in their order, to thread 0. `room` has an element
// per thread.
CRFSEG_DEVICE double sum_of_block(double own, double* room) {
  room[thread_index()] = own;
  block_barrier();
  double sum = 0.0;
  for (int i = 0; thread_index() == 0 && i < block_size(); ++i) sum += room[i];
  block_barrier();
  return sum;
}

}  // namespace cuda
}  // namespace crfseg
