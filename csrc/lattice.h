// SPDX-License-Identifier: MIT
// Permutohedral lattice: high-dimensional Gaussian filtering in O(N d^2)
// (Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", 2010).
//
// Each point lies in one simplex of d+1 vertices. Splat spreads its value to them with barycentric
// weights, blur runs [1 2 1]/4 along the d+1 lattice axes, slice reads back with the same weights:
//   K = gain * S^T B_d ... B_1 B_0 S        (S is splat; a missing vertex reads as 0)
// Hence slice = splat^T. The B do not commute at the border of the set of vertices, so K is not
// symmetric; its adjoint runs the axes in reverse, and training depends on it.
//
// Two knobs buy accuracy. `passes` repeats each B_j on a lattice that is finer by as much, so that
// the filter's variance stays 1: a pass [s, 1-2s, s] adds 2s (d+1)^2, splat and slice together 1/6
// (d+1)^2, hence the scale sqrt(2s passes + 1/6) (d+1). `fill` is a list of rounds: a round m adds
// every vertex that has at least m of its 2 (d+1) neighbours among those present, because most of
// the error of a plain lattice comes from vertices missing during the blur.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "buffer.h"
#include "kinds.h"
#include "math/blur_shape.h"
#include "view.h"

namespace crfseg {

constexpr int max_passes = 8;

struct BlurPlan;  // cpu/blur_plan.h

// Points row by row, whose features are x, y (, z) and the channels ((depth,) height, width,
// n_channels) of each, times inverse sigmas, one per feature.
struct PixelGrid {
  std::int64_t height, width;
  const void* channels;
  ChannelType type;
  int n_channels;
  const float* inverse_sigmas;
  std::int64_t depth = 0;  // of a volume; the points of an image have no z

  int n_positions() const { return depth > 0 ? 3 : 2; }
  std::int64_t n_points() const { return height * width * (depth > 0 ? depth : 1); }
};

class Features;

// What a filtered value is multiplied by, for points and for rows: what points read is a mean of
// rows, and so is its normalizer.
struct InverseNormalizer {
  std::int64_t nbytes() const { return of_points.nbytes() + of_rows.nbytes(); }

  Buffer<float> of_points;  // (n_points)
  Buffer<float> of_rows;    // (n_local), if asked for
};

class Lattice {
 public:
  // features: (n_points, dim) in units of their standard deviations, finite.
  // Throws NonFiniteFeature, KeyRange, std::bad_alloc, and TooLarge once filling would hold more
  // than max_bytes (0: no limit).
  Lattice(const float* features, std::int64_t n_points, int dim, std::vector<int> fill, int passes,
          int threads, std::int64_t max_bytes = 0);
  // The same without the features ever existing.
  Lattice(const PixelGrid& pixels, std::vector<int> fill, int passes, int threads,
          std::int64_t max_bytes = 0);

  std::int64_t nbytes() const;
  // (n_points) the filter of ones, K 1 / gain.
  Buffer<float> normalizer(int threads) const;
  // 1 / normalizer, or its square root; found once, for rows where they are wanted.
  const InverseNormalizer& inverse_normalizer(bool root, bool of_rows, int threads) const;
  // How the blur walks the vertices.
  const BlurPlan& blur_plan() const { return *blur_plan_; }
  std::int64_t n_local() const { return local_begin.back(); }
  std::int64_t local_rows(std::int64_t strip) const {
    return local_begin[strip + 1] - local_begin[strip];
  }

  // The row that a corner of one of the strip's points has.
  std::uint32_t row_of(std::int64_t strip, std::int64_t point, int corner) const {
    const std::int64_t i = point * (dim + 1) + corner;
    const Buffer<std::uint32_t>& wide = wide_corner_row[strip];
    return wide.size() > 0 ? wide[i - strips.begin(strip) * (dim + 1)] : corner_row[i];
  }

  std::int64_t n_points = 0, n_vertices = 0;  // 64-bit: a 50k x 50k image has 1.5e10 corners
  int dim = 0, passes = 1;
  std::vector<int> fill;
  Strips strips;

  // Points see the vertices through their strip's own rows, numbered from 0 in order of first
  // touch.
  Buffer<std::uint16_t> corner_row;  // (n_points, dim + 1) where they hold the strip's rows,
  std::vector<Buffer<std::uint32_t>> wide_corner_row;  // (strips) or else (its points, dim + 1)
  Buffer<float> corner_weight;                         // (n_points, dim + 1), barycentric
  std::vector<std::int64_t> local_begin;  // (strips + 1) first row of each strip in all rows
  Buffer<std::uint32_t> local_vertex;     // (n_local) the vertex behind a row

 private:
  Lattice(const Features& features, std::int64_t n_points, std::vector<int> fill, int passes,
          int threads, std::int64_t max_bytes);

  mutable std::mutex normalizer_mutex_;
  mutable InverseNormalizer inverse_, root_of_inverse_;
  std::shared_ptr<const BlurPlan> blur_plan_;
};

// What `gain` of a lattice makes K the Gaussian of height 1: the inverse of an isolated point's
// mean response to itself. Depends on its three arguments alone.
double lattice_gain(int dim, const std::vector<int>& fill, int passes);

// The diagonal of K / gain.
void self_response(const Lattice& lattice, int threads, float* out);

// out = K~ values, or K~^T values; (n_points, n_channels) both, contiguous.
void lattice_filter(const Lattice& lattice, Normalization normalization, bool transpose,
                    const float* values, std::int64_t n_channels, int threads, float* out);

}  // namespace crfseg
