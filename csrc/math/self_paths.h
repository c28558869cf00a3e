// SPDX-License-Identifier: MIT
// What of a value comes back to the simplex that it was splat to.
//
// A value splat to corner a reaches corner b of the same simplex along few paths. Let S be the axes
// that lead from a to b. A path that moves t_j steps along axis j ends in b exactly if
// t = 1_S + c (1, ..., 1) for some integer c, because one step along every axis leads back to where
// it started. Each candidate is walked axis by axis, as the blur does, through vertices that exist.
#pragma once

#include <cstdint>

#include "math/permutohedral.h"

namespace crfseg {
namespace self_paths {

constexpr int most_passes = 8;

// How vertices of a lattice are walked: `absent` is where a step leads that leads nowhere.
// Neighbours has next(vertex, axis, forth).
struct Blur {
  int corners, passes;
  double side;
  std::uint32_t absent;
};

// The share of a value at *v that the blur along one axis carries `steps` steps away; *v goes
// along.
template <class Neighbours>
CRFSEG_HD double move(const Blur& blur, const Neighbours& neighbours, int axis, int steps,
                      std::uint32_t* v) {
  const int passes = blur.passes;
  if (steps > passes || -steps > passes) return 0.0;
  // share[i]: what is i - passes steps away; values that reach a missing vertex are lost.
  double share[2 * most_passes + 1] = {};
  bool exists[2 * most_passes + 1] = {};
  exists[passes] = true;
  share[passes] = 1.0;
  std::uint32_t target = *v;
  for (int direction = 1; direction >= -1; direction -= 2) {
    std::uint32_t at = *v;
    for (int i = 1; i <= passes && at != blur.absent; ++i) {
      at = neighbours.next(at, axis, direction > 0);
      exists[passes + direction * i] = at != blur.absent;
      if (steps == direction * i) target = at;
    }
    if (steps * direction > 0 && !exists[passes + steps]) return 0.0;
  }
  for (int pass = 0; pass < passes; ++pass) {
    double before = 0.0;
    for (int i = 0; i <= 2 * passes; ++i) {
      const double own = share[i];
      const double after = i < 2 * passes ? share[i + 1] : 0.0;
      share[i] = exists[i] ? (1.0 - 2.0 * blur.side) * own + blur.side * (before + after) : 0.0;
      before = own;
    }
  }
  *v = target;
  return share[passes + steps];
}

// axis_to_next[k] leads from a corner of a simplex, by remainder, to the one behind it.
template <class Neighbours>
CRFSEG_HD void find_axes(const Blur& blur, const Neighbours& neighbours,
                         const std::uint32_t* simplex, int* axis_to_next) {
  for (int k = 0; k + 1 < blur.corners; ++k) {
    int axis = 0;
    while (neighbours.next(simplex[k], axis, true) != simplex[k + 1]) ++axis;
    axis_to_next[k] = axis;
  }
}

// B[b][a]: what of a value at corner a comes to corner b.
template <class Neighbours>
CRFSEG_HD double between(const Blur& blur, const Neighbours& neighbours,
                         const std::uint32_t* simplex, const int* axis_to_next, int a, int b) {
  int steps[permutohedral::max_corners] = {};
  for (int k = a < b ? a : b; k < (a < b ? b : a); ++k) steps[axis_to_next[k]] = a < b ? 1 : -1;
  double sum = 0.0;
  for (int c = -blur.passes - 1; c <= blur.passes + 1; ++c) {
    double product = 1.0;
    std::uint32_t v = simplex[a];
    for (int axis = 0; axis < blur.corners && product > 0.0; ++axis) {
      product *= move(blur, neighbours, axis, steps[axis] + c, &v);
    }
    sum += product;
  }
  return sum;
}

}  // namespace self_paths
}  // namespace crfseg
