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

class SlabSupply;

class FieldKernel {
 public:
  FieldKernel(std::shared_ptr<const Lattice> shared, Normalization mode, float weight,
              const Compatibility& mu, bool exclude_self, int n_labels, int width, int threads);

  // Where the strip's points are, and their scales.
  kernels::Message points(std::int64_t strip) const;
  // incoming: where to put what the strip's points slice; null if they do not. splat: whether they
  // splat, to rows that have been cleared.
  kernels::Message message(std::int64_t strip, float* incoming, bool splat);

  // (its rows) of the strip, see Scales::of_rows; found where there is more than one slab of
  // labels.
  const float* row_scale(std::int64_t strip) const {
    return scales_.of_rows() != nullptr ? scales_.of_rows() + lattice_->local_begin[strip]
                                        : nullptr;
  }

  // Half of the sum of w K~ over all pairs of points.
  double half_total_weight(int threads);
  // With a matrix for compatibility, mixes the blurred rows by it.
  void mix(int threads);

  const Lattice& lattice() const { return *lattice_; }
  VertexRows& rows(int slab = 0) { return rows_[slab]; }
  // Rows for all labels together.
  void hold_labels();
  void drop_rows() { rows_.clear(); }
  // One channel, for the difference of two labels.
  void hold_difference();
  // Rows for each slab of labels, of messages times log2(e).
  void hold_slabs(const SlabSupply& labels);
  void list_rows(std::vector<VertexRows*>* all);
  bool is_normalized() const { return normalization_ != Normalization::none; }
  // Whether what labels add to messages is never negative.
  bool attracts() const;
  Compatibility::Kind kind() const { return kind_; }
  bool excludes_self() const { return self_.size() > 0; }
  std::int64_t nbytes() const;

 private:
  enum class Held { labels, difference, slabs };

  std::shared_ptr<const Lattice> lattice_;
  Scales scales_;
  int width_;
  Held held_ = Held::labels;
  std::vector<VertexRows> rows_;  // of what is held
  Normalization normalization_;
  float weight_;
  Compatibility::Kind kind_;
  int n_labels_;
  std::vector<float> factor_;  // (width) what blurred rows are multiplied by on their way to points
  std::vector<float> matrix_;  // (n_labels, width), see message_matrix; empty where not needed
  Buffer<float> self_;         // (n_points) with exclude_self: the diagonal of K~ / gain
  std::optional<double> half_total_;  // half_total_weight, once asked for
};

// Those of few corners first, as pairs are walked (cpu/kernels/pairs.h).
std::vector<FieldKernel*> by_corners(const std::vector<std::unique_ptr<FieldKernel>>& kernels);

// Rows of all kernels' lattices that the points of one strip touch, at most.
std::int64_t most_rows(const std::vector<std::unique_ptr<FieldKernel>>& kernels,
                       const Strips& strips);

}  // namespace crfseg
