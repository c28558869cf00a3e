// SPDX-License-Identifier: MIT
#include "math/key_ranges.h"

#include <algorithm>
#include <cmath>

#include "error.h"
#include "math/blur_shape.h"

namespace crfseg {
namespace {

int bits_for(std::int64_t highest) {
  int bits = 1;
  while ((std::int64_t{1} << bits) <= highest) ++bits;
  return bits;
}

// Elevated coordinates that features between lo and hi can have.
struct Reach {
  double low[permutohedral::max_corners] = {};
  double high[permutohedral::max_corners] = {};
  int widest_axis = 0;  // of the features
};

Reach reach_of(const KeyRanges& ranges, const float* lo, const float* hi) {
  Reach reach;
  double widest = 0.0;
  double below = 0.0, above = 0.0;  // range of the sum over the coordinates behind j
  for (int j = ranges.dim; j >= 0; --j) {
    reach.low[j] = below;
    reach.high[j] = above;
    if (j == 0) break;
    const int axis = j - 1;
    const double from = double(lo[axis]) * ranges.scale[axis];
    const double to = double(hi[axis]) * ranges.scale[axis];
    reach.low[j] -= j * to;
    reach.high[j] -= j * from;
    below += from;
    above += to;
    const double span = j * std::max(std::abs(from), std::abs(to));
    if (span > widest) {
      widest = span;
      reach.widest_axis = axis;
    }
  }
  return reach;
}

}  // namespace

KeyRanges KeyRanges::of(int dim, int passes, int rounds, const float* lo, const float* hi) {
  KeyRanges ranges;
  ranges.dim = dim;
  const int corners = dim + 1;
  const BlurShape shape = BlurShape::of(passes);
  const double deviation =
      corners * shape.stretch * std::sqrt(2.0 * shape.side * passes + 1.0 / 6.0);
  for (int axis = 0; axis < dim; ++axis) {
    ranges.scale[axis] = static_cast<float>(deviation / std::sqrt((axis + 1.0) * (axis + 2.0)));
  }
  const Reach reach = reach_of(ranges, lo, hi);
  const KeyRange too_wide(reach.widest_axis, lo[reach.widest_axis], hi[reach.widest_axis]);
  ranges.remainder_bits = bits_for(dim);
  // Room for rounding, for the corners of the simplex, and for the neighbours of filled rings.
  const int margin = 4 + rounds;
  std::int64_t widest = -1;
  for (int j = 0; j < corners; ++j) {
    if (std::max(-reach.low[j], reach.high[j]) > permutohedral::max_elevated) throw too_wide;
    ranges.lowest[j] = static_cast<std::int64_t>(std::floor(reach.low[j] / corners)) - margin;
    ranges.highest[j] = static_cast<std::int64_t>(std::ceil(reach.high[j] / corners)) + margin;
    if (ranges.highest[j] - ranges.lowest[j] <= widest) continue;
    widest = ranges.highest[j] - ranges.lowest[j];
    ranges.omitted = j;
  }
  ranges.total_bits = ranges.remainder_bits;
  for (int j = 0; j < corners; ++j) {
    if (j == ranges.omitted) continue;
    ranges.bits[j] = bits_for(ranges.highest[j] - ranges.lowest[j]);
    ranges.total_bits += ranges.bits[j];
  }
  if (ranges.total_bits > 128) throw too_wide;
  return ranges;
}

int KeyRanges::shift(int coordinate) const {
  int shift = remainder_bits;
  for (int i = 0; i < coordinate; ++i) shift += bits[i];
  return shift;
}

std::int64_t KeyRanges::end_of_keys() const { return span_of_keys(*this) + 1; }

std::int64_t KeyRanges::span_of_keys(const KeyRanges& part) const {
  std::int64_t span = dim;
  for (int i = 0; i <= dim; ++i) {
    if (i != omitted) span += (part.highest[i] - part.lowest[i]) << shift(i);
  }
  return span;
}

}  // namespace crfseg
