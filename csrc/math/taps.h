// SPDX-License-Identifier: MIT
// Where the pixels along one side of an image lie between coarse scores: the same on every device,
// for nothing here may be contracted to fused multiply-adds.
//
// Pixel centres lie at (i + 1/2) coarse / fine - 1/2, or with align_corners at
// i (coarse - 1) / (fine - 1); what falls outside takes the nearest score.
#pragma once

#include <cstdint>

#include "math/host_device.h"

namespace crfseg {

// A pixel between two scores, and how far it is from the lower to the higher.
struct Tap {
  std::int64_t low, high;
  float share;
};

CRFSEG_HD Tap tap_of(std::int64_t i, std::int64_t coarse, std::int64_t fine, bool align_corners) {
  const double last = static_cast<double>(coarse - 1);
  double place = 0.0;
  if (!align_corners) {
    const double step = static_cast<double>(coarse) / static_cast<double>(fine);
    place = (static_cast<double>(i) + 0.5) * step - 0.5;
  } else if (fine > 1) {
    place = static_cast<double>(i) * (last / static_cast<double>(fine - 1));
  }
  place = place < 0.0 ? 0.0 : place > last ? last : place;
  const auto low = static_cast<std::int64_t>(place);
  const std::int64_t high = low + 1 < coarse ? low + 1 : coarse - 1;
  return {low, high, static_cast<float>(place - static_cast<double>(low))};
}

}  // namespace crfseg
