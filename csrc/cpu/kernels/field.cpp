// SPDX-License-Identifier: MIT
// The mean-field pass. Compiled once per instruction set; see kernels.h for what may not be
// included here.
//
// It works on batches of points so small that everything about them stays in the first-level cache:
// slice and splat of one point depend on memory the previous point has just written, and only with
// many independent points in flight does the processor hide that.
#include "cpu/kernels/marginals.h"
#include "cpu/kernels/rows.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// Takes the self term back out of the message: t -= self * (-w mu q), q the previous marginals.
CRFSEG_INLINE void exclude_self(const FieldPass& pass, const Message& m, std::int64_t first, int n,
                                float* t) {
  const int width = pass.width;
  for (int p = 0; p < n; ++p, t += width) {
    const float* q = pass.q + (first + p) * width;
    const float self = m.self[first + p];
    if (m.self_rows == nullptr) {
      for (int x = 0; x < width; ++x) t[x] -= self * m.self_factor[x] * q[x];
      continue;
    }
    for (int label = 0; label < pass.n_labels; ++label) {
      const float amount = self * q[label];
      const float* row = m.self_rows + static_cast<std::int64_t>(label) * width;
      for (int x = 0; x < width; ++x) t[x] -= amount * row[x];
    }
  }
}

// z' = damping z + (1 - damping) (-U - message)
CRFSEG_INLINE void damp(const FieldPass& pass, std::int64_t first, int n, float* t) {
  float* z = pass.z + first * pass.width;
  for (int i = 0; i < n * pass.width; ++i) {
    const float mixed = pass.damping * z[i] + (1.0F - pass.damping) * t[i];
    z[i] = t[i] = mixed < log_zero ? log_zero : mixed;
  }
}

// sum q log q + U q + 1/2 q (message), with t = -U - message. Labels that are forbidden have no
// mass.
CRFSEG_INLINE void add_energy(FieldPass* pass, std::int64_t first, int n, const float* t) {
  double sum = 0.0;
  for (int p = 0; p < n; ++p) {
    const float* q = pass->q + (first + p) * pass->width;
    const float* log_unary = pass->log_unary + (first + p) * pass->width;
    for (int label = 0; label < pass->n_labels; ++label) {
      const double mass = q[label];
      if (mass <= 2.0 * smallest) continue;
      double entropy = pass->entropy ? __builtin_log(mass) : 0.0;
      if (log_unary[label] <= log_zero) entropy = __builtin_inf();
      sum += mass * (entropy - 0.5 * (static_cast<double>(log_unary[label]) +
                                      static_cast<double>(t[p * pass->width + label])));
    }
  }
  pass->energy += sum;
}

CRFSEG_INLINE void note_change(FieldPass* pass, std::int64_t first, int n, const float* q) {
  const float* before = pass->q + first * pass->width;
  V4 change = V4{} + pass->max_change;
  for (int i = 0; i < n * pass->width; i += 4) {
    change = maximum(absolute(load<V4>(q + i) - load<V4>(before + i)), change);
  }
  for (int lane = 0; lane < 4; ++lane) pass->max_change = maximum(pass->max_change, change[lane]);
}

// t = -U - message
CRFSEG_INLINE void add_messages(const FieldPass& pass, std::int64_t first, int n, float* t) {
  const float* base = pass.log_unary + first * pass.width;
  for (int k = 0; k < pass.n_messages; ++k) {
    const Message& m = pass.messages[k];
    if (m.incoming == nullptr) continue;
    slice_rows(from_point(m.at, first), from_point(m.slice_scale, first), m.incoming, base, n,
               pass.width, t);
    base = t;
    if (m.self != nullptr) exclude_self(pass, m, first, n, t);
  }
  if (base != t) copy(base, static_cast<std::int64_t>(n) * pass.width, t);
}

CRFSEG_INLINE void pass_batch(FieldPass* pass, std::int64_t first, int n, float* t) {
  const int width = pass->width;
  const std::int64_t floats = static_cast<std::int64_t>(n) * width;
  if (pass->fixed_q != nullptr) {
    copy(pass->fixed_q + first * width, floats, t);
  } else {
    add_messages(*pass, first, n, t);
    if (pass->want_energy) return add_energy(pass, first, n, t);
    if (pass->z != nullptr) damp(*pass, first, n, t);
    softmax(t, n, width);
  }
  if (pass->want_change) note_change(pass, first, n, t);
  if (pass->q != nullptr) copy(t, floats, pass->q + first * width);
  if (pass->out.data != nullptr) write_out(pass->out, nullptr, first, n, pass->n_labels, width, t);
  if (pass->labels != nullptr) {
    float top[most_batched] = {};
    std::int32_t best[most_batched] = {};
    find_best(nullptr, t, n, pass->n_labels, width, top, best);
    __builtin_memcpy(pass->labels + first, best, sizeof(std::int32_t) * n);
  }
  for (int k = 0; k < pass->n_messages; ++k) {
    const Message& m = pass->messages[k];
    if (m.outgoing == nullptr) continue;
    splat_rows(from_point(m.at, first), from_point(m.splat_scale, first), t, n, width, m.outgoing);
  }
}

void field_pass(FieldPass* pass) {
  float* t = pass->scratch;
  for (std::int64_t first = 0; first < pass->n_points; first += pass->batch) {
    const std::int64_t left = pass->n_points - first;
    const int n = static_cast<int>(left < pass->batch ? left : pass->batch);
    // The softmax takes points in groups: those behind the last one must hold numbers.
    if (n < pass->batch) __builtin_memset(t, 0, sizeof(float) * pass->batch * pass->width);
    pass_batch(pass, first, n, t);
  }
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
