// SPDX-License-Identifier: MIT
#include "cuda/grid.h"
#include "cuda/self_response.h"
#include "cuda/tile.cuh"
#include "math/blur_shape.h"
#include "math/self_paths.h"

namespace crfseg {
namespace cuda {
namespace {

struct DeviceNeighbours {
  CRFSEG_HD_MEMBER std::uint32_t next(std::uint32_t v, int axis, bool forth) const {
    return neighbours[2 * (axis * n_vertices + v) + (forth ? 0 : 1)];
  }
  const std::uint32_t* neighbours;
  std::int64_t n_vertices;
};

// The diagonal of K / gain, times the scales of both ends.
CRFSEG_KERNEL respond_to_self(CRFSEG_CONSTANT LatticeView lattice,
                              CRFSEG_CONSTANT self_paths::Blur blur, const float* slice_scale,
                              const float* splat_scale, float* self) {
  const Tiling& tiling = lattice.tiling;
  const DeviceNeighbours neighbours{lattice.neighbours, lattice.n_vertices};
  for (std::int64_t i = grid_first(); i < tiling.n_slots(); i += grid_stride()) {
    const std::int64_t tile = i / tiling.size(), slot = i % tiling.size();
    self[i] = 0.0F;
    if (tiling.point(tile, static_cast<int>(slot)) < 0) continue;
    const std::int64_t first = tile * tiling.size() * blur.corners + slot;
    std::uint32_t simplex[permutohedral::max_corners];
    int axis_to_next[permutohedral::max_corners];
    for (int k = 0; k < blur.corners; ++k) {
      simplex[k] = lattice.corner_vertex[first + k * tiling.size()];
    }
    self_paths::find_axes(blur, neighbours, simplex, axis_to_next);
    double sum = 0.0;
    for (int a = 0; a < blur.corners; ++a) {
      for (int b = 0; b < blur.corners; ++b) {
        const double weights =
            static_cast<double>(lattice.corner_weight[first + a * tiling.size()]) *
            static_cast<double>(lattice.corner_weight[first + b * tiling.size()]);
        sum += weights * self_paths::between(blur, neighbours, simplex, axis_to_next, a, b);
      }
    }
    float own = static_cast<float>(sum);
    if (slice_scale != nullptr) own *= slice_scale[i];
    if (splat_scale != nullptr) own *= splat_scale[i];
    self[i] = own;
  }
}

CRFSEG_KERNEL write_points(CRFSEG_CONSTANT Tiling tiling, const float* of_slots, float factor,
                           float* out) {
  for (std::int64_t i = grid_first(); i < tiling.n_slots(); i += grid_stride()) {
    const std::int64_t tile = i / tiling.size();
    const std::int64_t point = tiling.point(tile, static_cast<int>(i % tiling.size()));
    if (point >= 0) out[tile / tiling.per_item * tiling.n_points + point] = factor * of_slots[i];
  }
}

}  // namespace

Array<float> self_response(const Lattice& lattice, const Scales& scales, const Allocate& allocate,
                           Stream stream) {
  const Lattice built = lattice.built();
  const LatticeView& view = built.view();
  Array<float> self(view.tiling.n_slots(), allocate);
  const self_paths::Blur blur{view.dim + 1, lattice.passes(), BlurShape::of(lattice.passes()).side,
                              no_vertex};
  CRFSEG_LAUNCH(respond_to_self, elementwise(view.tiling.n_slots()), block_threads, 0, stream, view,
                blur, scales.slice, scales.splat, self.data());
  return self;
}

void self_response(const Lattice& lattice, Normalization normalization, double gain_of_lattice,
                   float* out, const Allocate& allocate, Stream stream) {
  const Scales scales(lattice, normalization, gain_of_lattice, allocate, stream);
  const Array<float> self = self_response(lattice, scales, allocate, stream);
  CRFSEG_LAUNCH(write_points, elementwise(self.size()), block_threads, 0, stream,
                lattice.built().view().tiling, self.data(), scales.gain, out);
}

}  // namespace cuda
}  // namespace crfseg
