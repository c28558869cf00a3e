// SPDX-License-Identifier: MIT
#include "cpu/taps.h"

namespace crfseg {

std::vector<Tap> taps(std::int64_t coarse, std::int64_t fine, bool align_corners) {
  std::vector<Tap> out;
  out.reserve(static_cast<std::size_t>(fine));
  for (std::int64_t i = 0; i < fine; ++i) out.push_back(tap_of(i, coarse, fine, align_corners));
  return out;
}

}  // namespace crfseg
