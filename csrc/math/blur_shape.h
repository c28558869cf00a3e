// SPDX-License-Identifier: MIT
#pragma once

namespace crfseg {

// One pass of the blur along an axis is [side, 1 - 2 side, side]. K&K's 1/4 for a single pass. Two
// passes of 0.24 come closer to a Gaussian than two of 1/4 if the lattice is also stretched a
// little: found by search over labels that differ from the exact model's
// (benchmarks/bench_accuracy.py).
struct BlurShape {
  double side = 0.25, stretch = 1.0;

  static BlurShape of(int passes) { return passes == 2 ? BlurShape{0.24, 1.03} : BlurShape{}; }
};

}  // namespace crfseg
