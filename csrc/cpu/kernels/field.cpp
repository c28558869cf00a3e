// SPDX-License-Identifier: MIT
// The mean-field pass. Compiled once per instruction set; see kernels.h for what may not be
// included here.
//
// It works on batches of points so small that everything about them stays in the first-level cache:
// slice and splat of one point depend on memory the previous point has just written, and only with
// many independent points in flight does the processor hide that.
#include "cpu/kernels/messages.h"
#include "cpu/kernels/update.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// z' = damping z + (1 - damping) (-U - message)
CRFSEG_INLINE void damp(const FieldPass& pass, std::int64_t first, int n, float* t) {
  float* z = pass.z + first * pass.width;
  for (int i = 0; i < n * pass.width; ++i) {
    const float mixed = pass.damping * z[i] + (1.0F - pass.damping) * t[i];
    z[i] = t[i] = mixed < log_zero ? log_zero : mixed;
  }
}

CRFSEG_INLINE void pass_batch(FieldPass* pass, std::int64_t first, int n, float* t) {
  const int width = pass->width;
  const std::int64_t floats = static_cast<std::int64_t>(n) * width;
  if (pass->fixed_q != nullptr) {
    copy(pass->fixed_q + first * width, floats, t);
  } else {
    const float* base = pass->log_unary + first * width;
    const float* before = pass->q != nullptr ? pass->q + first * width : nullptr;
    add_messages(*pass, first, n, base, before, t);
    if (pass->want_energy) {
      pass->energy += energy_of(n, pass->n_labels, width, base, before, t, pass->entropy);
      return;
    }
    if (pass->z != nullptr) damp(*pass, first, n, t);
    respond(pass->update, t, n, width);
    if (pass->update.step < 1.0F) move(before, t, pass->update.step, floats, t);
    if (pass->want_change) pass->max_change = largest_change(before, t, floats, pass->max_change);
  }
  if (pass->q != nullptr) copy(t, floats, pass->q + first * width);
  if (pass->out.data != nullptr) write_out(pass->out, nullptr, first, n, pass->n_labels, width, t);
  if (pass->labels != nullptr) {
    float top[most_batched] = {};
    std::int32_t best[most_batched] = {};
    find_best(nullptr, t, n, pass->n_labels, width, top, best);
    __builtin_memcpy(pass->labels + first, best, sizeof(std::int32_t) * n);
  }
  splat_batch(pass->messages, pass->n_messages, first, n, width, t);
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
