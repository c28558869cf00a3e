// SPDX-License-Identifier: MIT
// The passes of a line search. Compiled once per instruction set; see kernels.h for what may not be
// included here.
#include "cpu/kernels/layouts.h"
#include "cpu/kernels/messages.h"
#include "cpu/kernels/update.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

typedef double D4 __attribute__((vector_size(32)));

CRFSEG_INLINE double sum_of(D4 v) { return v[0] + v[1] + (v[2] + v[3]); }

void line_search_begin(LineSearchPass* pass) {
  for_batches(pass->n_points, pass->batch, pass->width, pass->scratch,
              [&](std::int64_t first, int n) {
                const std::int64_t at = first * pass->width;
                add_messages(*pass, first, n, pass->log_unary + at, pass->x + at, pass->t + at);
              });
}

// With r = s - x and d = P r = t - t_at_s:
//   slope = <U, r> + (<x, P r> + <r, P x>) / 2 = sum x d / 2 - r (t - U) / 2, curvature = sum r d,
// whether P is symmetric or not. Labels that are forbidden hold next to nothing of either.
void line_search_measure(LineSearchPass* pass) {
  const int width = pass->width;
  D4 slope = {}, curvature = {};
  for_batches(pass->n_points, pass->batch, width, pass->scratch, [&](std::int64_t first, int n) {
    const std::int64_t begin = first * width, end = begin + static_cast<std::int64_t>(n) * width;
    add_messages(*pass, first, n, pass->log_unary + begin, pass->s + begin, pass->t_at_s + begin);
    for (std::int64_t i = begin; i < end; i += 4) {
      const V4 log_unary = load<V4>(pass->log_unary + i), t = load<V4>(pass->t + i);
      const V4 x = load<V4>(pass->x + i), r = load<V4>(pass->s + i) - x;
      const V4 d = t - load<V4>(pass->t_at_s + i);
      const V4 rise = 0.5F * (x * d - r * (t + log_unary));
      slope += __builtin_convertvector(log_unary > 0.5F * log_zero ? rise : V4{}, D4);
      curvature += __builtin_convertvector(r * d, D4);
    }
  });
  pass->slope = sum_of(slope);
  pass->curvature = sum_of(curvature);
}

// Part of the way. (At its end, s and x have changed places, and so have their t.)
CRFSEG_INLINE void go(LineSearchPass* pass, std::int64_t at, std::int64_t floats) {
  const float step = pass->update.step;
  float *x = pass->x + at, *t = pass->t + at, *moved = pass->scratch;
  move(x, pass->s + at, step, floats, moved);
  pass->max_change = largest_change(x, moved, floats, pass->max_change);
  copy(moved, floats, x);
  const float* t_at_s = pass->t_at_s + at;
  for (std::int64_t i = 0; i < floats; i += 4) {
    const V4 from = load<V4>(t + i);
    store<V4>(t + i, from + (load<V4>(t_at_s + i) - from) * step);
  }
}

CRFSEG_INLINE void move_batch(LineSearchPass* pass, std::int64_t first, int n) {
  const int width = pass->width;
  const std::int64_t at = first * width, floats = static_cast<std::int64_t>(n) * width;
  float *x = pass->x + at, *t = pass->t + at, *s = pass->s + at, *scratch = pass->scratch;
  if (pass->update.step == 1.0F) {
    pass->max_change = largest_change(s, x, floats, pass->max_change);
  } else if (pass->update.step > 0.0F) {
    go(pass, at, floats);
  }
  if (pass->want_energy) {
    pass->energy += energy_of(n, pass->n_labels, width, pass->log_unary + at, x, t, true);
  }
  if (!pass->want_next) return;
  copy(t, floats, scratch);
  respond(pass->update, scratch, n, width);
  copy(scratch, floats, s);
  splat_batch(pass->messages, pass->n_messages, first, n, width, scratch);
}

void line_search_move(LineSearchPass* pass) {
  for_batches(pass->n_points, pass->batch, pass->width, pass->scratch,
              [&](std::int64_t first, int n) { move_batch(pass, first, n); });
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
