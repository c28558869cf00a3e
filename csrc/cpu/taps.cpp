// SPDX-License-Identifier: MIT
#include "cpu/taps.h"

#include <algorithm>

namespace crfseg {

std::vector<kernels::Tap> taps(std::int64_t coarse, std::int64_t fine, bool align_corners) {
  const double step = align_corners ? (fine > 1 ? double(coarse - 1) / double(fine - 1) : 0.0)
                                    : double(coarse) / double(fine);
  std::vector<kernels::Tap> out;
  out.reserve(static_cast<std::size_t>(fine));
  for (std::int64_t i = 0; i < fine; ++i) {
    const double centre = align_corners ? double(i) * step : (double(i) + 0.5) * step - 0.5;
    const double place = std::clamp(centre, 0.0, double(coarse - 1));
    const auto low = static_cast<std::int64_t>(place);
    out.push_back({low, std::min(low + 1, coarse - 1), static_cast<float>(place - double(low))});
  }
  return out;
}

}  // namespace crfseg
