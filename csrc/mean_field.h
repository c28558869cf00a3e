// SPDX-License-Identifier: MIT
// Mean-field inference in a fully connected CRF (Krähenbühl & Koltun, NIPS 2011, Algorithm 1):
//   E(x)   = sum_i U_i(x_i) + sum_{i<j} sum_k w_k mu_k(x_i, x_j) k~_k(i, j)
//   Q'_i   = softmax(-U_i - sum_k w_k mu_k (K~_k Q)_i)
//   F(Q)   = sum Q log Q + sum U Q + 1/2 sum_k w_k sum Q . mu_k K~_k Q
// All points are updated at once. The messages are linear in the blurred sums, so mu is applied to
// the rows of the lattice, of which there are fewer than points, and every compatibility costs the
// same per point. One pass over a strip of points reads messages, applies the softmax and splats Q
// at once: Q itself is only stored where somebody asks for it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "buffer.h"
#include "compatibility.h"
#include "kinds.h"
#include "lattice.h"
#include "solver.h"
#include "unary.h"
#include "view.h"

namespace crfseg {

// What was found while reading unaries, for the caller to judge. Places are label * n_points +
// point.
struct UnaryReport {
  std::int64_t bad = -1;  // the first value that is not finite (energies: +inf forbids a label, but
                          // not all labels of a point)
  float low = 0.0F;       // the lowest value
  std::int64_t low_at = -1;
  float off = 0.0F;  // probabilities: the largest |sum over labels - 1|
  std::int64_t off_at = -1;
  double offset = 0.0;  // energies: the sum over points of the lowest, which is left out of rows
};

namespace kernels {
struct UnarySource;
struct UnaryStats;
}  // namespace kernels
class CoarseScores;
class HardLabels;

// Where unaries are: in rows of the field's own, still with the caller, or in what they are made
// from point by point. One of these is there.
struct UnarySupply {
  const float* rows = nullptr;    // (n_points, width) of -U up to a constant per point
  LabelView<const float> values;  // of this kind
  UnaryKind kind = UnaryKind::energies;
  float clip = 0.0F;
  std::shared_ptr<const CoarseScores> coarse{};  // of this kind
  std::shared_ptr<const HardLabels> labels{};

  kernels::UnarySource strip(const Strips& strips, std::int64_t s, int width) const;
};

struct InferenceOptions {
  int iterations = 10;
  float tolerance = 0.0F;  // stop once max |Q' - Q| is below it
  Solver solver{};
  bool trace = false;  // free energy of every Q on the way
  bool skip = false;   // leave out labels where they do not matter (cpu/slab_field.h)
  int threads = 1;
  std::function<void()> between_iterations;               // may throw to end the inference
  std::function<void(const UnaryReport&)> after_reading;  // of a lent unary; may throw as well
};

struct Inference {
  int iterations = 0;
  float max_change = 0.0F;  // of the last iteration; NaN unless tolerance or trace asked for it
  std::vector<double> trace;
  std::int64_t evaluations = 0;  // how many labels of points, in all iterations
};

class FieldKernel;

class MeanField {
 public:
  static constexpr int max_labels = 1 << 20;  // rows of a batch are counted in int

  MeanField(std::int64_t n_points, int n_labels);
  ~MeanField();
  MeanField(const MeanField&) = delete;
  MeanField& operator=(const MeanField&) = delete;

  UnaryReport set_unary(LabelView<const float> values, UnaryKind kind, float clip, int threads);
  // As set_unary, but the values stay where they are and are read by `infer` alone.
  void lend_unary(LabelView<const float> values, UnaryKind kind, float clip);
  // Scores (n_labels, rows * columns) that are upsampled to the image while they are used; a copy
  // is kept. What is reported was found in the scores. No energies.
  UnaryReport set_coarse_unary(LabelView<const float> scores, const CoarseGrid& grid,
                               UnaryKind kind, float clip, int threads);
  // Labels (n_points) stay where they are; those that are not 0..n_labels - 1 mean none.
  void lend_labels(const std::int32_t* labels, const LabelEnergies& energies);
  void add_kernel(std::shared_ptr<const Lattice> lattice, Normalization normalization, float weight,
                  Compatibility compatibility, bool exclude_self, int threads);
  void clear_kernels();

  // start: Q to begin with, softmax(-U) if null. out and labels may be null.
  Inference infer(LabelView<const float> start, const InferenceOptions& options,
                  LabelView<float> out, std::int32_t* labels);
  double free_energy(LabelView<const float> q, int threads);
  // The same without the entropy: the energy of labels drawn from q, E(q).
  double expected_energy(LabelView<const float> q, int threads);
  double energy(const std::int32_t* labels, int threads);

  std::int64_t nbytes() const;
  std::int64_t n_points() const { return strips_.n_points; }
  int n_labels() const { return n_labels_; }

 private:
  struct Pass;

  struct Totals {
    float change = 0.0F;
    double energy = 0.0;
  };

  UnaryReport load_rows(int threads);
  void infer_two_labels(const InferenceOptions& options, LabelView<float> out,
                        std::int32_t* labels);
  bool infer_slabs(const InferenceOptions& options, LabelView<float> out, std::int32_t* labels,
                   std::int64_t* evaluations);
  void infer_fully(LabelView<const float> start, const InferenceOptions& options,
                   LabelView<float> out, std::int32_t* labels, Inference* result);
  void iterate(const InferenceOptions& options, bool keep_q, LabelView<float> out,
               std::int32_t* labels, Inference* result);
  void search_lines(const InferenceOptions& options, Inference* result);
  bool rows_had_better_go(LabelView<float> out) const;
  Totals run(const Pass& pass);
  void exchange(int threads);
  void load_q(LabelView<const float> q, int threads);
  void drop_forbidden(int threads);
  void start_damping(bool given_q, int threads);
  bool excludes_self() const;
  double evaluate(bool entropy, int threads);
  double potts_constant(int threads);
  double energy_of_q(bool entropy, int threads);

  std::mutex mutex_;  // one inference at a time: they share what follows
  Strips strips_;
  int n_labels_, width_;
  UnarySupply unary_;
  Buffer<float> log_unary_;    // (n_points, width): -U, energies counted from each point's lowest,
  double unary_offset_ = 0.0;  // whose sum this is
  Buffer<float> q_, z_;        // (n_points, width) where somebody needs them
  Buffer<float> p_;            // of slabs of labels
  std::vector<std::unique_ptr<FieldKernel>> kernels_;
};

}  // namespace crfseg
