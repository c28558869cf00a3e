// SPDX-License-Identifier: MIT
// The values at the vertices of a lattice, one row each: where the points of a strip add to them,
// where they are blurred, and where the points read them again.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"
#include "cpu/blur_plan.h"
#include "cpu/kernels/kernels.h"
#include "lattice.h"

namespace crfseg {

// Floats in a row for so many channels: 1, 4, or a multiple of 8.
inline int row_width(std::int64_t n_channels) {
  if (n_channels == 1) return 1;
  return n_channels <= 4 ? 4 : static_cast<int>((n_channels + 7) / 8 * 8);
}

class VertexRows {
 public:
  // factor: (width) what points slice is so many times the blurred rows; empty stands for ones.
  VertexRows(const Lattice& lattice, int width, const std::vector<float>& factor = {});

  const Lattice& lattice() const { return *lattice_; }
  int width() const { return width_; }
  std::int64_t nbytes() const { return values_.nbytes(); }

  // The strip's rows, set to zero, for its points to splat to.
  float* cleared_rows(std::int64_t strip);

  // The strip's blurred rows, to be multiplied by gain(). They lie where the sums were.
  const float* blurred(std::int64_t strip) const { return values_.data() + first_row(strip); }
  float gain() const;
  // The factor times the strip's blurred rows, copied to (its rows, width), for points to slice.
  const float* fetch(std::int64_t strip, float* copy) const;
  // The same. Returns the largest entry, at least 0, each row counted by its weight; null stands
  // for ones.
  float fetch_with_largest(std::int64_t strip, const float* weight, float* copy) const;

  // Replaces every blurred row by matrix (n_labels, width) times it.
  void mix(const float* matrix, int n_labels, int threads);

  // Adds up all strips' rows and blurs them; with `transpose` the axes run in reverse. Several
  // lattices go through it together.
  static void blur(const std::vector<VertexRows*>& all, bool transpose, int threads);

 private:
  struct Step;
  struct Part;

  std::int64_t first_row(std::int64_t strip) const { return lattice_->local_begin[strip] * width_; }
  std::vector<kernels::Columns> columns(int most) const;

  static bool shares_are_even(const std::vector<Part>& parts, int threads);
  std::vector<Step> steps(bool transpose) const;
  void take(const Step& step, std::int64_t piece, kernels::Columns columns);

  const Lattice* lattice_;
  const BlurPlan* plan_;
  int width_;
  std::vector<float> factor_;  // (width) the caller's, times gain()
  Buffer<float> values_;  // (n_rows, width): those of the strips, then homes of filled vertices
};

}  // namespace crfseg
