// SPDX-License-Identifier: MIT
// How many blocks a launch has. Kernels loop, so that the device's size decides and nothing else.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/runtime.h"

namespace crfseg {
namespace cuda {

constexpr int block_threads = 256;

// For loops of blocks over n tiles.
inline std::int64_t blocks_of(std::int64_t n) {
  return std::max<std::int64_t>(1, std::min<std::int64_t>(n, std::int64_t{1} << 30));
}

// For loops of threads over n elements.
inline std::int64_t elementwise(std::int64_t n) {
  const std::int64_t wanted = (n + block_threads - 1) / block_threads;
  return std::max<std::int64_t>(1, std::min<std::int64_t>(wanted, blocks_at_once()));
}

}  // namespace cuda
}  // namespace crfseg
