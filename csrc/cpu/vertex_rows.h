// SPDX-License-Identifier: MIT
// The values at the vertices of a lattice, one row each: where points add to them (a strip's own
// rows) and where they are blurred (all vertices).
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"
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
  VertexRows(const Lattice& lattice, int width);

  const Lattice& lattice() const { return *lattice_; }
  int width() const { return width_; }
  std::int64_t nbytes() const { return local_.nbytes() + front_.nbytes() + back_.nbytes(); }

  // The strip's rows, set to zero, for its points to splat to.
  float* cleared_rows(std::int64_t strip);
  // The same with what has been splat to them so far.
  float* kept_rows(std::int64_t strip) {
    return local_.data() + lattice_->local_begin[strip] * width_;
  }

  // Copies what the strip's points slice from: factor (width) times the blurred rows.
  void fetch(std::int64_t strip, const float* factor, float* rows) const;

  // Replaces every blurred row by matrix (n_labels, width) times it.
  void mix(const float* matrix, int n_labels, int threads);

  // Adds up all strips' rows and blurs them; with `transpose` the axes run in reverse. Several
  // lattices go through it together.
  static void blur(const std::vector<VertexRows*>& all, bool transpose, int threads);

 private:
  int lanes() const { return width_ < 8 ? width_ : 8; }
  int n_slabs() const { return width_ / lanes(); }
  std::int64_t slab_stride() const { return (lattice_->n_vertices + 1) * lanes(); }
  int n_blurs() const { return (lattice_->dim + 1) * lattice_->passes; }
  kernels::Slabs slabs(Buffer<float>& rows) const { return {rows.data(), slab_stride()}; }

  void add_up(std::int64_t first, std::int64_t last);
  // The blur's step `step` of n_blurs(), for vertices of one slab; even steps read front_.
  void blur_step(int step, bool transpose, int slab, std::int64_t first, std::int64_t last);

  const Lattice* lattice_;
  int width_;
  Buffer<float> local_;  // (n_local, width)
  // (n_slabs, n_vertices + 1, lanes): a slab's last row stays zero, the value of missing vertices
  Buffer<float> front_, back_;
};

}  // namespace crfseg
