// SPDX-License-Identifier: MIT
// What unaries can be made from, on every device.
#pragma once

#include <cstdint>

namespace crfseg {

// How coarse scores, row by row, lie on an image: bilinearly (math/taps.h).
struct CoarseGrid {
  std::int64_t rows, columns, height, width;
  bool align_corners;
};

// What hard labels mean: the energy of a point's own label and of the others, and that of all
// labels where a point has none.
struct LabelEnergies {
  float given, other, unknown;
  int forbidden;  // a label that no point can have; or -1
};

}  // namespace crfseg
