// SPDX-License-Identifier: MIT
// The mathematics of the permutohedral lattice, written once for every instruction set and device
// (Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", 2010).
//
// A point f in R^d is elevated into the hyperplane sum(e) = 0 of R^(d+1). Lattice vertices there
// have integer coordinates that are congruent modulo d+1 to a common remainder r in 0..d:
//   coordinate_i = (d+1) q_i + r.
// The simplex around e is given by the quotients q of its remainder-0 vertex and by `rank`, the
// order of the differences e - (d+1) q. Going from its vertex of remainder k to that of k+1 adds 1
// to every coordinate but the one of rank d-k, which loses d. Hence that vertex has quotients
//   q_i - [rank_i > d-k].
//
// F and I are float and int, or vectors of as many lanes. Nothing here may be contracted to fused
// multiply-adds: all twins must find the same simplex, bit for bit.
#pragma once

#include "math/host_device.h"

namespace crfseg {
namespace permutohedral {

constexpr int max_dim = 16;
constexpr int max_corners = max_dim + 1;

// Elevated coordinates up to here leave float32 at least 1/8 of a lattice unit of resolution.
constexpr float max_elevated = 1048576.0F;

// 1 where a < b, for floats and for vectors of them (whose comparisons give -1).
CRFSEG_HD int less(float a, float b) { return a < b ? 1 : 0; }
CRFSEG_HD int above(int a, int b) { return a > b ? 1 : 0; }
CRFSEG_HD int to_int(float x) { return static_cast<int>(x); }
CRFSEG_HD float keep_if(int yes, float x) { return yes != 0 ? x : 0.0F; }
CRFSEG_HD int keep_if(int yes, int x) { return yes != 0 ? x : 0; }
CRFSEG_HD float maximum(float a, float b) { return a > b ? a : b; }
CRFSEG_HD float minimum(float a, float b) { return a < b ? a : b; }

// Rounds half to even, for |x| < 2^22.
template <class F>
CRFSEG_HD F round_even(F x) {
  constexpr float shift = 12582912.0F;  // 1.5 * 2^23
  return (x + shift) - shift;
}

// feature[0..d) -> elevated[0..d], with scale[i] = s / sqrt((i+1)(i+2)) and s the feature units in
// one standard deviation of the whole filter.
template <class F>
CRFSEG_HD void elevate(const F* feature, int dim, const float* scale, F* elevated) {
  F sum = feature[0] * 0.0F;
  for (int j = dim; j > 0; --j) {
    const F scaled = feature[j - 1] * scale[j - 1];
    elevated[j] = sum - scaled * static_cast<float>(j);
    sum = sum + scaled;
  }
  elevated[0] = sum;
}

// elevated[0..d] -> the enclosing simplex and the barycentric weight of its vertex of each
// remainder.
template <class F, class I>
CRFSEG_HD void find_simplex(const F* elevated, int dim, I* quotient, I* rank, F* weight) {
  const int corners = dim + 1;
  const float n_corners = static_cast<float>(corners);
  const float inverse = 1.0F / n_corners;
  F difference[max_corners];
  const F none = elevated[0] * 0.0F;
  const I zero = to_int(none);
  I sum = zero;
  for (int i = 0; i < corners; ++i) {
    const F rounded = round_even(elevated[i] * inverse);
    quotient[i] = to_int(rounded);
    difference[i] = elevated[i] - rounded * n_corners;
    rank[i] = zero + i;
    sum = sum + quotient[i];
  }
  for (int i = 0; i < dim; ++i) {
    for (int j = i + 1; j < corners; ++j) {
      const I smaller = less(difference[i], difference[j]);
      rank[i] = rank[i] + smaller;
      rank[j] = rank[j] - smaller;
    }
  }
  // Rounding may leave the plane sum(q) = 0; the ranks tell which coordinates to move back.
  for (int i = 0; i < corners; ++i) {
    rank[i] = rank[i] + sum;
    const I up = above(zero, rank[i]), down = above(rank[i], zero + dim);
    rank[i] = rank[i] + keep_if(up, zero + corners) - keep_if(down, zero + corners);
    quotient[i] = quotient[i] + up - down;
    difference[i] = difference[i] - keep_if(up, none + n_corners) + keep_if(down, none + n_corners);
  }
  // By rank, the largest first. No rank is asked: a network costs a third of looking them up.
  F sorted[max_corners] = {};
  for (int i = 0; i < corners; ++i) sorted[i] = difference[i];
  for (int i = 0; i < dim; ++i) {
    for (int j = i + 1; j < corners; ++j) {
      const F larger = maximum(sorted[i], sorted[j]);
      sorted[j] = minimum(sorted[i], sorted[j]);
      sorted[i] = larger;
    }
  }
  for (int i = 0; i < corners; ++i) sorted[i] = sorted[i] * inverse;
  weight[0] = sorted[dim] - sorted[0] + 1.0F;
  for (int k = 1; k < corners; ++k) weight[k] = sorted[dim - k] - sorted[corners - k];
}

}  // namespace permutohedral
}  // namespace crfseg
