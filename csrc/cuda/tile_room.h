// SPDX-License-Identifier: MIT
// Where blocks keep the rows of the tile that they work on: in shared memory, or where that is too
// small, in the device's, which its cache makes bearable.
#pragma once

#include <algorithm>

#include "cuda/arrays.h"
#include "cuda/grid.h"
#include "cuda/tiling.h"

namespace crfseg {
namespace cuda {

// Four times an odd number, so that threads next to each other meet other banks.
CRFSEG_HD int tile_stride(int width) { return width / 4 % 2 == 0 ? width + 4 : width; }

class TileRoom {
 public:
  TileRoom(const Tiling& tiling, int width, const Allocate& allocate) : blocks_(tiles_of(tiling)) {
    const std::int64_t floats = std::int64_t{tile_stride(width)} * tiling.size();
    shared_bytes_ = sizeof(float) * static_cast<std::size_t>(floats);
    if (shared_bytes_ <= most_shared_bytes()) return;
    shared_bytes_ = 0;
    blocks_ = std::min<std::int64_t>(blocks_, blocks_at_once());
    rows_ = Array<float>(blocks_ * floats, allocate);
  }

  std::int64_t blocks() const { return blocks_; }  // of a launch over all tiles
  std::size_t shared_bytes() const { return shared_bytes_; }
  float* rows() const { return rows_.data(); }  // (blocks, slots of a tile, stride), or null
  std::int64_t nbytes() const { return rows_.nbytes(); }

 private:
  static std::int64_t tiles_of(const Tiling& tiling) { return blocks_of(tiling.n_tiles()); }

  std::int64_t blocks_;
  std::size_t shared_bytes_ = 0;
  Array<float> rows_;
};

}  // namespace cuda
}  // namespace crfseg
