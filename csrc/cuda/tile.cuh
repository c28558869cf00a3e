// SPDX-License-Identifier: MIT
// What a block does for a tile of points: splat and slice. Values are rows of `width` numbers, a
// multiple of four, and worked on four at a time.
#pragma once

#include "cuda/lattice.h"
#include "cuda/quad.cuh"

namespace crfseg {
namespace cuda {

// A tile of values that a block holds, in shared memory or in that of the device.
struct TileValues {
  float* rows;  // (slots, stride)
  int stride;
};

// values: (slots, stride) of the tile. partial: rows of its lattice get its sums, by `unit`. scale:
// (built slots) or null.
template <class T>
CRFSEG_DEVICE void splat_tile(const LatticeView& lattice, std::int64_t tile, const float* values,
                              int stride, int width, const float* scale, T* partial,
                              RowUnit unit = {}) {
  const std::int64_t built = lattice.built_tile(tile);
  const int slots = lattice.tiling.size(), corners = lattice.dim + 1, quads = width / 4;
  const std::int64_t first = built * slots * corners, first_row = lattice.row_begin[built];
  const int n = static_cast<int>(lattice.row_begin[built + 1] - first_row);
  const int n_entries = lattice.tiling.count(built) * corners;
  T* out = partial + (lattice.copy_of(tile) * lattice.n_rows + first_row) * width;
  for (int i = thread_index(); i < n * quads; i += block_size()) {
    const int row = i / quads, quad = i % quads;
    if (first_row + row >= lattice.n_rows) break;  // there was no room for it
    const bool is_last = row + 1 == n || first_row + row + 1 == lattice.n_rows;
    const int end = is_last ? n_entries : lattice.row_entry[first_row + row + 1];
    Quad sum = no_quad();
    for (int entry = lattice.row_entry[first_row + row]; entry < end; ++entry) {
      const int slot = lattice.entry_slot[first + entry];
      float weight = lattice.entry_weight[first + entry];
      if (scale != nullptr) weight *= scale[built * slots + slot];
      sum = sum + weight * load_quad(values + slot * stride + 4 * quad);
    }
    store_quad(out + std::int64_t{row} * width + 4 * quad, scaled_for<T>(unit.inverse, sum));
  }
}

// Four of the values that a slot reads.
template <class T>
CRFSEG_DEVICE Quad slice_slot(const LatticeView& lattice, std::int64_t tile, int slot,
                              const T* rows, int width, int quad, RowUnit unit = {}) {
  const std::int64_t built = lattice.built_tile(tile);
  const int slots = lattice.tiling.size();
  const std::int64_t first = built * slots * (lattice.dim + 1) + slot;
  const T* own = rows + lattice.copy_of(tile) * lattice.n_vertices * width + 4 * quad;
  Quad sum = no_quad();
  for (int k = 0; k <= lattice.dim; ++k) {
    const std::int64_t vertex = lattice.corner_vertex[first + k * slots];
    sum = sum + lattice.corner_weight[first + k * slots] * load_quad(own + vertex * width);
  }
  return scaled_for<T>(unit.value, sum);
}

}  // namespace cuda
}  // namespace crfseg
