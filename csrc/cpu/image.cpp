// SPDX-License-Identifier: MIT
#include "image.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/taps.h"
#include "parallel.h"

namespace crfseg {
namespace {

// Unlike low + share (high - low) it never overflows.
float mix(float low, float high, float share) { return (1.0F - share) * low + share * high; }

}  // namespace

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

void upsample(const float* scores, std::int64_t n_labels, std::int64_t rows, std::int64_t columns,
              std::int64_t height, std::int64_t width, bool align_corners, int threads,
              float* out) {
  const std::vector<kernels::Tap> down = taps(rows, height, align_corners);
  const std::vector<kernels::Tap> across = taps(columns, width, align_corners);
  parallel_for(n_labels, threads, [&](std::int64_t label) {
    const float* plane = scores + label * rows * columns;
    std::vector<float> blended(static_cast<std::size_t>(columns));
    for (std::int64_t y = 0; y < height; ++y) {
      const float* low = plane + down[y].low * columns;
      const float* high = plane + down[y].high * columns;
      for (std::int64_t x = 0; x < columns; ++x) {
        blended[x] = mix(low[x], high[x], down[y].share);
      }
      float* target = out + (label * height + y) * width;
      for (std::int64_t x = 0; x < width; ++x) {
        const kernels::Tap& tap = across[x];
        target[x] = mix(blended[tap.low], blended[tap.high], tap.share);
      }
    }
  });
}

}  // namespace crfseg
