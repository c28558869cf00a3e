// SPDX-License-Identifier: MIT
// One pairwise term of a mean field: its lattice, and what its messages are made with.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "cpu/scales.h"
#include "cpu/vertex_rows.h"
#include "mean_field.h"

namespace crfseg {

class FieldKernel {
 public:
  FieldKernel(std::shared_ptr<const Lattice> shared, Normalization mode, float weight,
              const Compatibility& mu, bool exclude_self, int n_labels, int width, int threads);

  // incoming: where to put what the strip's points slice; null if they do not. splat: whether they
  // splat, to rows that have been cleared.
  kernels::Message message(std::int64_t strip, float* incoming, bool splat);

  // What the strip's points slice from, where it lies while sums are kept.
  const float* kept(std::int64_t strip) const { return rows_->fetch(strip, nullptr); }

  // Drift: a bound on how far the term's messages have moved, blurred from how far Q has moved at
  // every point (total variation distance, summed over iterations) by the term's own filter.
  void start_drift();
  const float* drift(std::int64_t strip) const { return drift_->fetch(strip, nullptr); }
  VertexRows& drift_rows() { return *drift_; }
  // What messages may move by, normalised, for a distance of 1 everywhere.
  float drift_weight() const { return drift_factor_; }
  const float* slice_scale(std::int64_t point) const { return scales_.slice(point); }

  // Half of the sum of w K~ over all pairs of points.
  double half_total_weight(int threads);
  // With a matrix for compatibility, mixes the blurred rows by it.
  void mix(int threads);

  const Lattice& lattice() const { return *lattice_; }
  VertexRows& rows() { return *rows_; }
  // Whether the sums of splats are to survive blurs. Makes rows where there are none.
  void keep_sums(bool keep);
  void drop_rows() { rows_.reset(); }
  // One channel, for the difference of two labels.
  void hold_difference();
  Compatibility::Kind kind() const { return kind_; }
  bool excludes_self() const { return self_.size() > 0; }
  std::int64_t nbytes() const {
    return (rows_ ? rows_->nbytes() : 0) + (drift_ ? drift_->nbytes() : 0) + self_.nbytes();
  }

 private:
  std::shared_ptr<const Lattice> lattice_;
  Scales scales_;
  int width_;
  VertexRows::Sums sums_ = VertexRows::Sums::replaced;
  std::optional<VertexRows> rows_, drift_;
  Normalization normalization_;
  float weight_;
  Compatibility::Kind kind_;
  int n_labels_;
  std::vector<float> factor_;  // (width) what blurred rows are multiplied by on their way to points
  std::vector<float> matrix_;  // (n_labels, width), see message_matrix; empty where not needed
  Buffer<float> self_;         // (n_points) with exclude_self: the diagonal of K~ / gain
  float drift_factor_;  // the range over labels of w mu times a difference of two Q that are at a
                        // total variation distance of 1, at most
  std::optional<double> half_total_;  // half_total_weight, once asked for
};

}  // namespace crfseg
