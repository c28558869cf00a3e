// SPDX-License-Identifier: MIT
// Numbers that the host knows, written by launches: a graph keeps the parameters of its launches,
// where a copy would read the host's memory again whenever it is replayed.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda/device.h"
#include "cuda/grid.h"

namespace crfseg {
namespace cuda {

struct Constants {
  static constexpr int most = 512;  // parameters of a launch take up to 4 KB
  int n = 0;
  float values[most] = {};
};

CRFSEG_KERNEL write_numbers(CRFSEG_CONSTANT Constants constants, float* to) {
  for (int i = thread_index(); i < constants.n; i += block_size()) to[i] = constants.values[i];
}

inline void write_constants(const std::vector<float>& values, float* to, Stream stream) {
  const std::size_t n = values.size();
  constexpr std::size_t few = 8 * Constants::most;
  if (n > few && !is_capturing(stream)) {
    copy_to_device(to, values.data(), n * sizeof(float), stream);
    return;
  }
  for (std::size_t first = 0; first < n; first += Constants::most) {
    Constants part;
    part.n = static_cast<int>(std::min<std::size_t>(n - first, Constants::most));
    std::copy_n(values.data() + first, part.n, part.values);
    CRFSEG_LAUNCH(write_numbers, 1, block_threads, 0, stream, part, to + first);
  }
}

}  // namespace cuda
}  // namespace crfseg
