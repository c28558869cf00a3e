// SPDX-License-Identifier: MIT
// Mean-field steps that are kept. Compiled once per instruction set; see kernels.h for what may not
// be included here.
#include "cpu/kernels/gradients.h"
#include "cpu/kernels/layouts.h"
#include "cpu/kernels/rows.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

CRFSEG_INLINE float highest_of(const float* row, int n_labels) {
  float highest = row[0];
  for (int label = 1; label < n_labels; ++label) highest = maximum(highest, row[label]);
  return highest;
}

// Only differences between labels matter to Q, and messages must not drown in a common offset.
CRFSEG_INLINE void read_logits(UnrolledPass* pass, std::int64_t first, int n) {
  const int width = pass->width;
  float* rows = pass->rows + first * width;
  with_vector(width, [&](auto vector) __attribute__((always_inline)) {
    read_rows<decltype(vector)>(pass->unary, first, n, pass->n_labels, width, log_zero, rows);
  });
  for (int p = 0; p < n; ++p) {
    float* row = rows + p * width;
    for (int label = 0; pass->is_energy && label < pass->n_labels; ++label) row[label] *= -1.0F;
    const float highest = highest_of(row, pass->n_labels);
    for (int label = 0; label < pass->n_labels; ++label) {
      row[label] = maximum(row[label] - highest, log_zero);
    }
    pass->highest[first + p] = highest;
  }
}

CRFSEG_INLINE void write_logits(const UnrolledPass& pass, std::int64_t first, int n, float* z) {
  for (int p = 0; p < n; ++p) {
    for (int x = 0; x < pass.width; ++x) z[p * pass.width + x] += pass.highest[first + p];
  }
  with_vector(pass.width, [&](auto vector) __attribute__((always_inline)) {
    write_values<decltype(vector)>(pass.out, first, n, pass.n_labels, pass.width, z, 1.0F);
  });
}

CRFSEG_INLINE void note_change(UnrolledPass* pass, std::int64_t first, int n, const float* q) {
  const float* before = pass->q + first * pass->width;
  V4 change = V4{} + pass->max_change;
  for (int i = 0; i < n * pass->width; i += 4) {
    change = maximum(absolute(load<V4>(q + i) - load<V4>(before + i)), change);
  }
  for (int lane = 0; lane < 4; ++lane) pass->max_change = maximum(pass->max_change, change[lane]);
}

// Z of a batch.
CRFSEG_INLINE void find_logits(UnrolledPass* pass, std::int64_t first, int n, float* z) {
  if (pass->unary.data != nullptr) read_logits(pass, first, n);
  const float* base = pass->rows + first * pass->width;
  for (int k = 0; k < pass->n_kernels; ++k) {
    const UnrolledKernel& m = pass->kernels[k];
    if (m.incoming == nullptr) continue;
    slice_rows(from_point(m.at, first), Everyone{}, from_point(m.slice_scale, first), m.incoming,
               base, n, pass->width, z);
    base = z;
  }
  if (base != z) copy(base, static_cast<std::int64_t>(n) * pass->width, z);
}

CRFSEG_INLINE void unrolled_batch(UnrolledPass* pass, std::int64_t first, int n, float* t) {
  const int width = pass->width;
  const std::int64_t floats = static_cast<std::int64_t>(n) * width;
  if (pass->given_q != nullptr) {
    copy(pass->given_q + first * width, floats, t);
  } else {
    find_logits(pass, first, n, t);
    if (pass->out.data != nullptr && pass->wants_logits) {
      write_logits(*pass, first, n, t);
      if (pass->q == nullptr) return;
    }
    softmax(t, n, width);
    if (pass->want_change) note_change(pass, first, n, t);
    if (pass->q != nullptr) copy(t, floats, pass->q + first * width);
    if (pass->out.data != nullptr && !pass->wants_logits) {
      write_out(pass->out, first, n, pass->n_labels, width, t);
    }
  }
  for (int k = 0; k < pass->n_kernels; ++k) {
    const UnrolledKernel& m = pass->kernels[k];
    if (m.outgoing == nullptr) continue;
    splat_rows(from_point(m.at, first), Everyone{}, from_point(m.splat_scale, first), t, n, width,
               m.outgoing);
  }
}

void unrolled_pass(UnrolledPass* pass) {
  for_batches(pass->n_points, pass->batch, pass->width, pass->scratch,
              [&](std::int64_t first, int n) { unrolled_batch(pass, first, n, pass->scratch); });
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
