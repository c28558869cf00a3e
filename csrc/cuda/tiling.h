// SPDX-License-Identifier: MIT
// How points are dealt to blocks of threads: square tiles of images, whose pixels share vertices,
// or runs of points in a row. Everything that is kept per point is kept by slot, tile after tile,
// so that a block reads and writes in a piece; slots beyond the border of an image hold no point.
#pragma once

#include <cstdint>

#include "math/permutohedral.h"

namespace crfseg {
namespace cuda {

struct Tiling {
  std::int64_t n_items = 1;   // of a batch
  std::int64_t n_points = 0;  // of an item
  std::int64_t width = 0;     // of images; 0: points in a row
  int side = 16;              // a tile holds side x side points
  std::int64_t across = 0;    // tiles side by side
  std::int64_t per_item = 0;  // tiles

  // As many points as keep the corners of a tile in the memory that a block shares.
  static int side_for(int dim) { return dim <= 7 ? 16 : 8; }

  static Tiling of(std::int64_t n_items, std::int64_t n_points, std::int64_t width, int side) {
    Tiling tiling;
    tiling.n_items = n_items;
    tiling.n_points = n_points;
    tiling.width = width;
    tiling.side = side;
    const std::int64_t height = width > 0 ? n_points / width : 0;
    tiling.across = (width + side - 1) / side;
    tiling.per_item = width > 0 ? tiling.across * ((height + side - 1) / side)
                                : (n_points + side * side - 1) / (side * side);
    return tiling;
  }

  CRFSEG_HD_MEMBER int size() const { return side * side; }
  CRFSEG_HD_MEMBER std::int64_t n_tiles() const { return n_items * per_item; }
  CRFSEG_HD_MEMBER std::int64_t n_slots() const { return n_tiles() * size(); }

  // The point of its item that a slot of a tile holds, or -1.
  CRFSEG_HD_MEMBER std::int64_t point(std::int64_t tile, int slot) const {
    const std::int64_t in_item = tile % per_item;
    if (width == 0) {
      const std::int64_t p = in_item * size() + slot;
      return p < n_points ? p : -1;
    }
    const std::int64_t x = in_item % across * side + slot % side;
    const std::int64_t p = (in_item / across * side + slot / side) * width + x;
    return x < width && p < n_points ? p : -1;
  }

  // How many points a tile holds.
  CRFSEG_HD_MEMBER int count(std::int64_t tile) const {
    const std::int64_t in_item = tile % per_item;
    if (width == 0) return lesser(n_points - in_item * size(), size());
    const std::int64_t height = n_points / width;
    return lesser(width - in_item % across * side, side) *
           lesser(height - in_item / across * side, side);
  }

 private:
  CRFSEG_HD_MEMBER static int lesser(std::int64_t a, int b) {
    return a < b ? static_cast<int>(a) : b;
  }
};

}  // namespace cuda
}  // namespace crfseg
