// SPDX-License-Identifier: MIT
// Mean field that can be differentiated: T steps of
//   Z^{t+1} = X + sum_k M_k K~_k Q^t,   Q^t = softmax(Z^t),   Z^0 = X
// where X are logits (minus the energies) and the coupling M_k(a, b) = -w_k(b) mu_k(a, b) is what
// filtered Q of label b adds to the logit of label a. Kernel weights, per label or not, and
// compatibilities differ only in how M is made of them, which is left to the caller.
//
// From G = dLoss/dQ^T the way back is, for t = T-1 .. 0 and starting with delta of Q^T,
//   delta    = Q (G - <G, Q>) over labels          dLoss/dX   += delta
//   R_k      = K~_k^T delta                        dLoss/dM_k += R_k^T Q^t, summed over points
//   G        = sum_k R_k M_k                       (dLoss/dQ^t)
// K~^T blurs the axes in reverse, so that a step back costs one filter per kernel like a step
// forth. Couplings act on rows of vertices, of which there are fewer than points, and so do their
// gradients: with S the splat and B the blur, R_k^T Q^t = (S delta)^T (B S Q^t), a product of rows
// that are there on the way back and of rows that the way forth leaves: Q^t and B S Q^t are what is
// kept of a step. Gradients of features need nothing else; see FeatureGradient.
//
// At a fixed point Q* = softmax(X + sum M K~ Q*) the same steps, with Q* for every Q^t, are the
// Neumann series of implicit differentiation: they go on until delta has died away.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "buffer.h"
#include "kinds.h"
#include "lattice.h"
#include "unroll_plan.h"
#include "view.h"

namespace crfseg {

// M: its diagonal (n_labels), or all of it (n_labels, n_labels).
struct Coupling {
  bool is_full = false;
  std::vector<float> values;
};

struct CoupledKernel {
  std::shared_ptr<const Lattice> lattice;
  Normalization normalization;
  Coupling coupling;
};

struct UnrollOptions {
  int iterations = 5;
  int differentiated = 5;     // the last so many steps; what is before them counts as constant
  int every = 1;              // Q^t kept: those of every so many steps; others are found again
  bool fixed_point = false;   // keep the last Q alone, which is what solves the equations
  float tolerance = 0.0F;     // fixed point: stop once max |Q' - Q| is below it
  bool wants_logits = false;  // Z^T instead of Q^T
  int threads = 1;
  std::function<void()> between_iterations;  // may throw to end it
};

struct Unrolling {
  int iterations = 0;
  float max_change = 0.0F;  // of the last one that was looked at; NaN unless for a fixed point
};

struct FeatureRequest {
  const float* features = nullptr;  // (n_points, dim) those of the lattice
  FeatureGradient form = FeatureGradient::none;
  float* out = nullptr;  // (n_points, dim)
};

// sum over steps of <dLoss/dZ^{t+1}, M K~ Q^t> with another lattice in a kernel's place: what
// difference quotients by a bandwidth are made of.
struct Probe {
  int kernel;
  std::shared_ptr<const Lattice> lattice;
};

struct BackOptions {
  std::vector<FeatureRequest> features;  // one per kernel
  std::vector<Probe> probes;
  int most_terms = 100;     // fixed point: of the series
  float tolerance = 1e-6F;  // fixed point: max |delta| of the last, relative to the first
  int threads = 1;
  std::function<void()> between_iterations;
};

struct Gradients {
  std::vector<std::vector<double>> couplings;  // per kernel as its coupling
  std::vector<double> probes;
  int terms = 0;          // fixed point: how many were added
  bool converged = true;  // fixed point: whether the last fell below the tolerance
};

class CoupledTerm;

class UnrolledField {
 public:
  UnrolledField(std::int64_t n_points, int n_labels, const std::vector<CoupledKernel>& kernels,
                int threads);
  ~UnrolledField();
  UnrolledField(const UnrolledField&) = delete;
  UnrolledField& operator=(const UnrolledField&) = delete;

  // unary: energies, or logits. What it keeps is for `back` after it.
  Unrolling run(LabelView<const float> unary, bool is_energy, const UnrollOptions& options,
                LabelView<float> out);
  // gradient: dLoss by what `run` returned; out: dLoss by its unary. As often as wanted.
  Gradients back(LabelView<const float> gradient, const BackOptions& options, LabelView<float> out);

  std::int64_t nbytes() const;
  std::int64_t n_points() const { return strips_.n_points; }
  int n_labels() const { return n_labels_; }
  int n_kernels() const { return static_cast<int>(terms_.size()); }
  const Lattice& lattice(int kernel) const;
  bool is_full(int kernel) const;

 private:
  struct Step;
  struct BackStep;
  class Return;

  float forth(const Step& step);
  void exchange(int threads, int keep);
  Unrolling go(LabelView<const float> unary, LabelView<float> out);
  float* room_for(int t);
  const float* marginals(int t, int threads);
  void find_sums(int t, int threads);
  void forget(int t);

  std::mutex mutex_;  // one way at a time: they share what follows
  Strips strips_;
  int n_labels_, width_;
  bool is_energy_ = false, is_run_ = false;
  UnrollOptions options_;
  UnrollPlan plan_;
  Buffer<float> rows_, highest_;  // (n_points, width) X less the highest of each point; (n_points)
  std::vector<Buffer<float>> q_;  // (steps) of (n_points, width), or empty
  std::vector<std::unique_ptr<CoupledTerm>> terms_;
};

}  // namespace crfseg
