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

// Which slabs of rows to work on, a slab being 8 labels: ascending numbers; null stands for all.
using SlabList = const std::vector<int>*;

class VertexRows {
 public:
  // What a blur does with the sums that points have splat. `replaced`: the blurred values take
  // their place, and nothing else is held; they are to be fetched before the rows are cleared.
  // `kept`: the blurred values lie beside them, so that later splats need only add what changes,
  // and are read where they lie.
  enum class Sums { replaced, kept };

  // factor: (width) what points slice is so many times the blurred rows; empty stands for ones.
  VertexRows(const Lattice& lattice, int width, Sums sums = Sums::replaced,
             const std::vector<float>& factor = {});

  const Lattice& lattice() const { return *lattice_; }
  int width() const { return width_; }
  std::int64_t nbytes() const { return sums_.nbytes() + blurred_.nbytes(); }

  // The strip's rows for its points to splat to: as they are, or set to zero. Of slabs left out
  // nothing is touched.
  float* rows(std::int64_t strip);
  float* cleared_rows(std::int64_t strip, SlabList slabs = nullptr);

  // The factor times the strip's blurred rows, for its points to slice from; copied to `copy`
  // (its rows, width) where the sums are replaced.
  const float* fetch(std::int64_t strip, float* copy, SlabList slabs = nullptr) const;

  // Where the sums are replaced: the strip's blurred rows themselves, to be multiplied by gain().
  const float* blurred(std::int64_t strip) const;
  float gain() const;

  // Replaces every blurred row by matrix (n_labels, width) times it.
  void mix(const float* matrix, int n_labels, int threads);

  // Adds up all strips' rows and blurs them; with `transpose` the axes run in reverse. Several
  // lattices go through it together. Slabs left out stay as they are.
  static void blur(const std::vector<VertexRows*>& all, bool transpose, int threads,
                   SlabList slabs = nullptr);

 private:
  struct Step;
  struct Part;

  bool keeps_sums() const { return blurred_.size() > 0; }
  Buffer<float>& values() { return keeps_sums() ? blurred_ : sums_; }
  const Buffer<float>& values() const { return keeps_sums() ? blurred_ : sums_; }
  std::int64_t first_row(std::int64_t strip) const { return lattice_->local_begin[strip] * width_; }
  std::vector<kernels::Columns> columns(SlabList slabs, int most) const;

  static bool shares_are_even(const std::vector<Part>& parts, int threads);
  std::vector<Step> steps(bool transpose) const;
  void take(const Step& step, std::int64_t piece, kernels::Columns columns);
  void start(std::int64_t first, std::int64_t last, kernels::Columns columns);

  const Lattice* lattice_;
  const BlurPlan* plan_;
  int width_;
  std::vector<float> factor_;  // (width) the caller's, times gain()
  Buffer<float> sums_;     // (n_local, width), and the homes of filled vertices where none are kept
  Buffer<float> blurred_;  // (n_rows, width); empty where the sums are replaced
};

}  // namespace crfseg
