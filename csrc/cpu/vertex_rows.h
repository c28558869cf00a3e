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
  // `kept`: the blurred values lie beside them, so that later splats need only add what changes.
  enum class Sums { replaced, kept };

  VertexRows(const Lattice& lattice, int width, int threads, Sums sums = Sums::replaced);

  const Lattice& lattice() const { return *lattice_; }
  int width() const { return width_; }
  std::int64_t nbytes() const { return sums_.nbytes() + blurred_.nbytes(); }

  // The strip's rows for its points to splat to: as they are, or set to zero. Of slabs left out
  // nothing is touched.
  float* rows(std::int64_t strip);
  float* cleared_rows(std::int64_t strip, SlabList slabs = nullptr);

  // Copies what the strip's points slice from: factor (width) times the blurred rows.
  void fetch(std::int64_t strip, const float* factor, float* rows, SlabList slabs = nullptr) const;

  // The strip's blurred rows themselves, which are to be multiplied by gain().
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

  bool keeps_sums() const { return blurred_.size() > 0; }
  Buffer<float>& values() { return keeps_sums() ? blurred_ : sums_; }
  const Buffer<float>& values() const { return keeps_sums() ? blurred_ : sums_; }
  std::int64_t first_row(std::int64_t strip) const { return lattice_->local_begin[strip] * width_; }
  std::vector<kernels::Columns> columns(SlabList slabs, int most) const;

  std::vector<Step> steps(bool transpose) const;
  void take(const Step& step, std::int64_t piece, kernels::Columns columns);
  void start(std::int64_t first, std::int64_t last, kernels::Columns columns);

  const Lattice* lattice_;
  const BlurPlan* plan_;
  int width_;
  Buffer<float> sums_;     // (n_local, width), and the homes of filled vertices where none are kept
  Buffer<float> blurred_;  // (n_rows, width); empty where the sums are replaced
};

}  // namespace crfseg
