// SPDX-License-Identifier: MIT
#include <algorithm>

#include "view.h"

namespace crfseg {

// Large strips share few vertices; small ones keep their rows in the second-level cache and give
// many threads something to do. A dozen divides well among 2, 3, 4, 6 and 12 threads.
Strips Strips::of(std::int64_t n_points) {
  const std::int64_t smallest = 4096, largest = 32768, enough = 12;
  Strips strips;
  strips.n_points = n_points;
  const std::int64_t wanted = std::clamp((n_points + enough - 1) / enough, smallest, largest);
  strips.count = std::max<std::int64_t>(1, (n_points + wanted - 1) / wanted);
  strips.size = ((n_points + strips.count - 1) / strips.count + 7) / 8 * 8;
  strips.count = n_points > 0 ? (n_points + strips.size - 1) / strips.size : 0;
  return strips;
}

}  // namespace crfseg
