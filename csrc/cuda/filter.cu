// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>

#include "cuda/filter.h"
#include "cuda/grid.h"
#include "cuda/tile.cuh"
#include "cuda/values.h"

namespace crfseg {
namespace cuda {
namespace {

// Splats a tile after having read its points' values; no values stand for ones.
CRFSEG_KERNEL read_and_splat(CRFSEG_CONSTANT LatticeView lattice, const float* values,
                             std::int64_t n_channels, float gain, int width, const float* scale,
                             float* rows, float* partial) {
  const Tiling& tiling = lattice.tiling;
  const TileValues own{rows + block_index() * tiling.size() * width, width};
  for (std::int64_t tile = block_index(); tile < tiling.n_tiles(); tile += grid_size()) {
    const float* item = values != nullptr
                            ? values + tile / tiling.per_item * tiling.n_points * n_channels
                            : nullptr;
    for (int i = thread_index(); i < tiling.size() * width; i += block_size()) {
      const int slot = i / width, channel = i % width;
      const std::int64_t point = tiling.point(tile, slot);
      const bool is_there = point >= 0 && channel < n_channels;
      const float value = is_there && item != nullptr ? item[point * n_channels + channel] : 1.0F;
      own.rows[slot * own.stride + channel] = is_there ? gain * value : 0.0F;
    }
    block_barrier();
    splat_tile(lattice, tile, own.rows, own.stride, width, scale, partial);
    block_barrier();
  }
}

CRFSEG_KERNEL slice_and_write(CRFSEG_CONSTANT LatticeView lattice, const float* rows, int width,
                              const float* scale, std::int64_t n_channels, float* out) {
  const Tiling& tiling = lattice.tiling;
  const int quads = width / 4;
  for (std::int64_t tile = block_index(); tile < tiling.n_tiles(); tile += grid_size()) {
    float* item = out + tile / tiling.per_item * tiling.n_points * n_channels;
    for (int i = thread_index(); i < tiling.size() * quads; i += block_size()) {
      const int slot = i / quads, quad = i % quads;
      const std::int64_t point = tiling.point(tile, slot);
      if (point < 0) continue;
      Quad value = slice_slot(lattice, tile, slot, rows, width, quad);
      if (scale != nullptr) {
        value = scale[lattice.built_tile(tile) * tiling.size() + slot] * value;
      }
      const float parts[4] = {value.x, value.y, value.z, value.w};
      CRFSEG_UNROLL
      for (int part = 0; part < 4; ++part) {
        if (4 * quad + part < n_channels) {
          item[point * n_channels + 4 * quad + part] = parts[part];
        }
      }
    }
  }
}

// What n the slots read, as a scale: 1 / n, or its square root.
CRFSEG_KERNEL slice_inverse(CRFSEG_CONSTANT LatticeView lattice, const float* rows, bool root,
                            float* scale) {
  const Tiling& tiling = lattice.tiling;
  for (std::int64_t i = grid_first(); i < tiling.n_slots(); i += grid_stride()) {
    const std::int64_t tile = i / tiling.size();
    const int slot = static_cast<int>(i % tiling.size());
    if (tiling.point(tile, slot) < 0) {
      scale[i] = 0.0F;
      continue;
    }
    const float sum = slice_slot(lattice, tile, slot, rows, 4, 0).x;
    scale[i] = root ? 1.0F / sqrtf(sum) : 1.0F / sum;
  }
}

// Values of all points to blurred rows.
const float* spread(const Lattice& lattice, const float* scale, float gain, const float* values,
                    std::int64_t n_channels, bool transpose, Values* rows, const Allocate& allocate,
                    Stream stream) {
  const LatticeView& view = lattice.view();
  const int width = padded(n_channels);
  const std::int64_t blocks =
      std::min<std::int64_t>(blocks_of(view.tiling.n_tiles()), blocks_at_once());
  const Array<float> room(blocks * view.tiling.size() * width, allocate);
  CRFSEG_LAUNCH(read_and_splat, blocks, block_threads, 0, stream, view, values, n_channels, gain,
                width, scale, room.data(), rows->partial());
  return rows->blur(transpose, nullptr, stream);
}

}  // namespace

Scales::Scales(const Lattice& lattice, Normalization normalization, double gain_of_lattice,
               const Allocate& allocate, Stream stream) {
  if (normalization == Normalization::none) {
    gain = static_cast<float>(gain_of_lattice);
    return;
  }
  const Lattice built = lattice.built();
  Values rows(built, 4, allocate);
  const float* blurred = spread(built, nullptr, 1.0F, nullptr, 1, false, &rows, allocate, stream);
  const std::int64_t n_slots = built.view().tiling.n_slots();
  of_slots = Array<float>(n_slots, allocate);
  CRFSEG_LAUNCH(slice_inverse, elementwise(n_slots), block_threads, 0, stream, built.view(),
                blurred, normalization == Normalization::symmetric, of_slots.data());
  if (normalization != Normalization::before) slice = of_slots.data();
  if (normalization != Normalization::after) splat = of_slots.data();
}

void lattice_filter(const Lattice& lattice, Normalization normalization, double gain_of_lattice,
                    bool transpose, const float* values, std::int64_t n_channels, float* out,
                    const Allocate& allocate, Stream stream) {
  const Scales scales(lattice, normalization, gain_of_lattice, allocate, stream);
  const LatticeView& view = lattice.view();
  const int width = padded(n_channels);
  Values rows(lattice, width, allocate);
  const float* blurred = spread(lattice, transpose ? scales.slice : scales.splat, scales.gain,
                                values, n_channels, transpose, &rows, allocate, stream);
  CRFSEG_LAUNCH(slice_and_write, blocks_of(view.tiling.n_tiles()), block_threads, 0, stream, view,
                blurred, width, transpose ? scales.splat : scales.slice, n_channels, out);
}

}  // namespace cuda
}  // namespace crfseg
