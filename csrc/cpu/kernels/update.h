// SPDX-License-Identifier: MIT
// What solvers (solver.h) make of rows of t = -U - P x. Everything is static: see kernels.h.
#pragma once

#include "cpu/kernels/marginals.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// Nearest point of the simplex to each of as many rows as V has lanes, in place: max(z - tau, 0),
// where tau makes the sum 1. Newton's steps for tau from below, where the sum is convex, stop at
// the right support after finitely many (Michelot 1986 has the same steps).
template <class V>
CRFSEG_APART void sparsemax_group(float* rows, int width) {
  enum { lanes = Lanes<V>::count };
  float top[lanes], tau[lanes], sum[lanes], count[lanes], before[lanes] = {};
  reduce_each<Max>(rows, lanes, width, V{} + 2.0F * log_zero, top,
                   [&](int, const float* place, auto vector)
                       __attribute__((always_inline)) { return load<decltype(vector)>(place); });
  // Counted from the highest, lest tau be lost next to it.
  for (int p = 0; p < lanes; ++p) tau[p] = -1.0F;
  bool settled = false;
  for (int round = 0; round <= width && !settled; ++round) {
    reduce_each<Sum>(rows, lanes, width, V{}, sum,
                     [&](int p, float* place, auto vector) __attribute__((always_inline)) {
                       typedef decltype(vector) W;
                       const W z = round > 0 ? load<W>(place) : load<W>(place) - top[p];
                       store<W>(place, z);
                       return maximum(z - tau[p], W{});
                     });
    reduce_each<Sum>(rows, lanes, width, V{}, count,
                     [&](int p, const float* place, auto vector) __attribute__((always_inline)) {
                       typedef decltype(vector) W;
                       return load<W>(place) > tau[p] ? W{} + 1.0F : W{};
                     });
    settled = true;
    for (int p = 0; p < lanes; ++p) {
      settled = settled && count[p] == before[p];
      before[p] = count[p];
      tau[p] += (sum[p] - 1.0F) / count[p];
    }
  }
  for (int p = 0; p < lanes; ++p) {
    for_vectors<V>(width, [&](auto vector, int x) __attribute__((always_inline)) {
      typedef decltype(vector) W;
      float* place = rows + p * width + x;
      store<W>(place, maximum(load<W>(place) - tau[p], W{}));
    });
  }
}

template <class V>
CRFSEG_INLINE void sparsemax_rows(float* rows, int n, int width) {
  for (int p = 0; p < n; p += Lanes<V>::count) sparsemax_group<V>(rows + p * width, width);
}

// t becomes s. Rows up to the next multiple of eight must hold numbers.
CRFSEG_INLINE void respond(const Update& update, float* t, int n, int width) {
  if (update.sharpness != 1.0F) {
    for (int i = 0; i < n * width; ++i) {
      t[i] = t[i] < 0.5F * log_zero ? log_zero : t[i] * update.sharpness;
    }
  }
  if (!update.euclidean) return softmax(t, n, width);
  if (width == 4) return sparsemax_rows<V4>(t, n, width);
  sparsemax_rows<Wide>(t, n, width);
}

// x + step (s - x), of n floats; what is next to nothing becomes 0, lest it be denormal one day.
CRFSEG_INLINE void move(const float* x, const float* s, float step, std::int64_t n, float* moved) {
  for (std::int64_t i = 0; i < n; i += 4) {
    const V4 from = load<V4>(x + i);
    const V4 to = from + (load<V4>(s + i) - from) * step;
    store<V4>(moved + i, to < smallest ? V4{} : to);
  }
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
