// SPDX-License-Identifier: MIT
// What the passes over the points of a strip are told that run a mean field whose steps are kept,
// and that go back through it. See kernels.h for what rows are, and gradients.h for the equations.
#pragma once

#include <cstdint>

#include "cpu/kernels/kernels.h"

namespace crfseg {
namespace kernels {

// One kernel as a step forward sees it.
struct UnrolledKernel {
  Corners at;
  const float* slice_scale;  // (n) or null
  const float* splat_scale;  // (n) or null
  const float* incoming;     // rows of M times the blurred sums; null: no message yet
  float* outgoing;           // rows to which Q is added; null where nobody asks
};

// Z = unary logits + sum over kernels of M K~ Q, Q = softmax(Z).
struct UnrolledPass {
  std::int64_t n_points;
  int n_labels, width;
  LabelStrip unary;      // .data null: read before
  bool is_energy;        // whether it is to be negated
  float* rows;           // (n, width) logits less the highest of their point, written when read
  float* highest;        // (n)
  const float* given_q;  // (n, width) or null: splat these rows and do nothing else
  const UnrolledKernel* kernels;
  int n_kernels;
  float* scratch;  // (batch, width)
  int batch;
  float* q;  // (n, width) or null
  bool want_change;
  float max_change;  // out: max |dQ| against q
  LabelStrip out;    // .data null: not wanted
  bool wants_logits;
};

// One kernel as a step back sees it.
struct AdjointKernel {
  Corners at;
  const float* slice_scale;  // (n) or null
  const float* splat_scale;  // (n) or null
  const float* adjoint;      // rows of M^T B^T S delta; null at the first step
  const float* filtered;     // rows of M B S Q; null unless gradients of features are wanted
  float* adjoint_out;        // rows to which the next delta is added; or null
  float* corner;             // (n, corners): dLoss by the corners' weights is added
  float* mass;               // (n): what the normaliser's gradient needs is added
  bool slice_has_mass, splat_has_mass;
};

// G = sum over kernels of K~^T delta M, and the next delta = Q (G - <G, Q>).
struct AdjointPass {
  std::int64_t n_points;
  int n_labels, width;
  LabelStrip gradient;       // .data null unless this is the first step: G, or delta of logits
  const float* given_delta;  // (n, width) or null: take these rows for delta
  const float* q;            // (n, width) of the step that is left; null where not needed
  bool through_softmax;      // whether what was found is G
  bool goes_on;              // whether anybody wants the next delta
  float* delta;              // (n, width) or null: read as the present delta, then overwritten
  float* sum;                // (n, width) or null: delta is added
  const AdjointKernel* kernels;
  int n_kernels;
  float* scratch;  // (batch, width)
  int batch;
  float largest;  // out: max |delta|
};

}  // namespace kernels
}  // namespace crfseg
