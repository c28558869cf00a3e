// SPDX-License-Identifier: MIT
#include "cpu/simplex_frame.h"

#include <algorithm>
#include <cmath>

namespace crfseg {

// Up to 8 dimensions bases are powers of two, and 32 bits hold an order.
int order_bits(const KeyRanges& ranges) {
  if (ranges.dim <= 8) return (ranges.dim - 1) * ranges.remainder_bits + 1;
  double orders = 2.0;
  for (int i = 0; i < ranges.dim - 1; ++i) orders *= ranges.dim + 1;
  return static_cast<int>(std::ceil(std::log2(orders)));
}

bool names_fit(const KeyRanges& ranges) {
  return ranges.total_bits - ranges.remainder_bits + order_bits(ranges) <= 64;
}

kernels::SimplexFrame simplex_frame(const KeyRanges& ranges, bool wants_vertices) {
  kernels::SimplexFrame frame{};
  frame.dim = ranges.dim;
  frame.omitted = ranges.omitted;
  frame.order_base =
      ranges.dim <= 8 ? 1U << ranges.remainder_bits : static_cast<unsigned>(ranges.dim + 1);
  frame.wants_vertices = wants_vertices;
  frame.names_origin = !wants_vertices && names_fit(ranges);
  std::copy_n(ranges.scale, ranges.dim, frame.scale);
  if (!wants_vertices && !frame.names_origin) return frame;
  for (int i = 0; i <= ranges.dim; ++i) {
    if (i == ranges.omitted) continue;
    frame.shift[i] =
        ranges.shift(i) + (wants_vertices ? 0 : order_bits(ranges) - ranges.remainder_bits);
    frame.lowest += static_cast<std::uint64_t>(ranges.lowest[i]) << frame.shift[i];
  }
  return frame;
}

}  // namespace crfseg
