// SPDX-License-Identifier: MIT
// What the passes of a mean field and of its solvers share: messages, energies and changes of the
// points of a batch. Everything is static: see kernels.h.
#pragma once

#include "cpu/kernels/marginals.h"
#include "cpu/kernels/rows.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// Takes the self term back out of the message: t -= self * (-w mu q), q what the message is of.
CRFSEG_INLINE void exclude_self(const Message& m, std::int64_t first, int n, int n_labels,
                                int width, const float* q, float* t) {
  for (int p = 0; p < n; ++p, t += width, q += width) {
    const float self = m.self[first + p];
    if (m.self_rows == nullptr) {
      for (int x = 0; x < width; ++x) t[x] -= self * m.self_factor[x] * q[x];
      continue;
    }
    for (int label = 0; label < n_labels; ++label) {
      const float amount = self * q[label];
      const float* row = m.self_rows + static_cast<std::int64_t>(label) * width;
      for (int x = 0; x < width; ++x) t[x] -= amount * row[x];
    }
  }
}

// t = base - message, of points from `first` on; no base is zero. base and q are rows of theirs.
template <class Pass>
CRFSEG_INLINE void add_messages(const Pass& pass, std::int64_t first, int n, const float* base,
                                const float* q, float* t) {
  const int width = pass.width;
  for (int k = 0; k < pass.n_messages; ++k) {
    const Message& m = pass.messages[k];
    if (m.incoming == nullptr) continue;
    slice_rows(from_point(m.at, first), from_point(m.slice_scale, first), m.incoming, base, n,
               width, t);
    base = t;
    if (m.self != nullptr) exclude_self(m, first, n, pass.n_labels, width, q, t);
  }
  if (base == t) return;
  const std::int64_t floats = static_cast<std::int64_t>(n) * width;
  if (base != nullptr) return copy(base, floats, t);
  __builtin_memset(t, 0, sizeof(float) * floats);
}

// sum q log q + U q + 1/2 q (message), with t = -U - message. Labels that are forbidden have no
// mass.
CRFSEG_INLINE double energy_of(int n, int n_labels, int width, const float* log_unary,
                               const float* q, const float* t, bool entropy) {
  double sum = 0.0;
  for (int p = 0; p < n; ++p, log_unary += width, q += width, t += width) {
    for (int label = 0; label < n_labels; ++label) {
      const double mass = q[label];
      if (mass <= 2.0 * smallest) continue;
      double own = entropy ? __builtin_log(mass) : 0.0;
      if (log_unary[label] <= log_zero) own = __builtin_inf();
      sum += mass *
             (own - 0.5 * (static_cast<double>(log_unary[label]) + static_cast<double>(t[label])));
    }
  }
  return sum;
}

// max |after - before| of n floats, and of what was found so far.
CRFSEG_INLINE float largest_change(const float* before, const float* after, std::int64_t n,
                                   float so_far) {
  V4 change = V4{} + so_far;
  for (std::int64_t i = 0; i < n; i += 4) {
    change = maximum(absolute(load<V4>(after + i) - load<V4>(before + i)), change);
  }
  for (int lane = 0; lane < 4; ++lane) so_far = maximum(so_far, change[lane]);
  return so_far;
}

CRFSEG_INLINE void splat_batch(const Message* messages, int n_messages, std::int64_t first, int n,
                               int width, const float* values) {
  for (int k = 0; k < n_messages; ++k) {
    const Message& m = messages[k];
    if (m.outgoing == nullptr) continue;
    splat_rows(from_point(m.at, first), from_point(m.splat_scale, first), values, n, width,
               m.outgoing);
  }
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
