// SPDX-License-Identifier: MIT
// Mean-field steps that are kept. Compiled once per instruction set; see kernels.h for what may not
// be included here.
#include "cpu/kernels/gradients.h"
#include "cpu/kernels/layouts.h"
#include "cpu/kernels/rows.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// Rows of logits less the highest of their point, and that. Only differences between labels matter
// to Q, and messages must not drown in a common offset.
template <class V>
CRFSEG_APART void read_logits(const UnrolledPass& pass, std::int64_t first, int n) {
  float* rows = pass.rows + first * pass.width;
  const float sign = pass.is_energy ? -1.0F : 1.0F;
  for_groups<V>(n, [&](int p, int count) __attribute__((always_inline)) {
    const auto logit = [&](int label) __attribute__((always_inline)) {
      return read_tile<V>(pass.unary, first + p, count, label) * sign;
    };
    V top = logit(0);
    for (int label = 1; label < pass.n_labels; ++label) top = maximum(top, logit(label));
    for (int lane = 0; lane < count; ++lane) pass.highest[first + p + lane] = top[lane];
    make_rows<V>(count, pass.n_labels, pass.width, log_zero, rows + p * pass.width,
                 [&](int label) __attribute__((always_inline)) {
                   return maximum(logit(label) - top, V{} + log_zero);
                 });
  });
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

// Z of a batch, less what is highest in the unary of each point.
CRFSEG_INLINE void find_logits(const UnrolledPass& pass, std::int64_t first, int n, float* z) {
  if (pass.unary.data != nullptr) {
    with_vector(pass.width, [&](auto vector) __attribute__((always_inline)) {
      read_logits<decltype(vector)>(pass, first, n);
    });
  }
  const float* base = pass.rows + first * pass.width;
  for (int k = 0; k < pass.n_kernels; ++k) {
    const UnrolledKernel& m = pass.kernels[k];
    if (m.incoming == nullptr) continue;
    slice_rows(from_point(m.at, first), from_point(m.slice_scale, first), m.incoming, base, n,
               pass.width, z);
    base = z;
  }
  if (base != z) copy(base, static_cast<std::int64_t>(n) * pass.width, z);
}

CRFSEG_INLINE void unrolled_batch(UnrolledPass* pass, std::int64_t first, int n, float* t) {
  const int width = pass->width;
  const std::int64_t floats = static_cast<std::int64_t>(n) * width;
  if (pass->given_q != nullptr) {
    copy(pass->given_q + first * width, floats, t);
  } else {
    find_logits(*pass, first, n, t);
    if (pass->out.data != nullptr && pass->wants_logits) {
      write_logits(*pass, first, n, t);
      if (pass->q == nullptr) return;
    }
    softmax(t, n, width);
    if (pass->want_change) note_change(pass, first, n, t);
    if (pass->q != nullptr) copy(t, floats, pass->q + first * width);
    if (pass->out.data != nullptr && !pass->wants_logits) {
      write_out(pass->out, nullptr, first, n, pass->n_labels, width, t);
    }
  }
  for (int k = 0; k < pass->n_kernels; ++k) {
    const UnrolledKernel& m = pass->kernels[k];
    if (m.outgoing == nullptr) continue;
    splat_rows(from_point(m.at, first), from_point(m.splat_scale, first), t, n, width, m.outgoing);
  }
}

void unrolled_pass(UnrolledPass* pass) {
  for_batches(pass->n_points, pass->batch, pass->width, pass->scratch,
              [&](std::int64_t first, int n) { unrolled_batch(pass, first, n, pass->scratch); });
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
