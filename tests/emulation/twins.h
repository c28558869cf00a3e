// SPDX-License-Identifier: MIT
// Points for both twins, and the lattices that they make of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "../cpp/check.h"
#include "cpu/blur_plan.h"
#include "cuda/lattice.h"
#include "lattice.h"

namespace twins {

namespace cuda = crfseg::cuda;

// An image, or rows of features where it has no width, of several items.
struct Scene {
  std::int64_t n_items = 1, height = 1, width = 1;
  int n_channels = 3;
  std::vector<float> inverse_sigmas;   // (2 + n_channels)
  std::vector<std::uint8_t> channels;  // (n_items, height, width, n_channels)
  std::int64_t n_points() const { return height * width; }
  int dim() const { return 2 + n_channels; }
};

// Blocks of colour with noise on them.
inline Scene scene(std::int64_t n_items, std::int64_t height, std::int64_t width, int n_channels,
                   float sigma_xy, float sigma_rgb, std::uint64_t seed) {
  Scene made;
  made.n_items = n_items;
  made.height = height;
  made.width = width;
  made.n_channels = n_channels;
  made.inverse_sigmas = {1.0F / sigma_xy, 1.0F / sigma_xy};
  made.inverse_sigmas.resize(static_cast<std::size_t>(2 + n_channels), 1.0F / sigma_rgb);
  check::Random random(seed);
  for (std::int64_t item = 0; item < n_items; ++item) {
    for (std::int64_t p = 0; p < height * width; ++p) {
      const std::int64_t block = (p / width / 7 + p % width / 9 + item) % 4;
      for (int c = 0; c < n_channels; ++c) {
        made.channels.push_back(
            static_cast<std::uint8_t>(50 * block + 10 * c + random.bits() % 24));
      }
    }
  }
  return made;
}

inline crfseg::PixelGrid pixels_of(const Scene& scene, std::int64_t item) {
  return {scene.height,
          scene.width,
          scene.channels.data() + item * scene.n_points() * scene.n_channels,
          crfseg::ChannelType::uint8,
          scene.n_channels,
          scene.inverse_sigmas.data()};
}

inline cuda::Points points_of(const Scene& scene) {
  cuda::Points points;
  points.n_items = scene.n_items;
  points.n_points = scene.n_points();
  points.dim = scene.dim();
  points.channels = scene.channels.data();
  points.type = crfseg::ChannelType::uint8;
  points.n_channels = scene.n_channels;
  points.width = scene.width;
  std::copy(scene.inverse_sigmas.begin(), scene.inverse_sigmas.end(), points.inverse_sigmas);
  const float most[] = {static_cast<float>(scene.width - 1), static_cast<float>(scene.height - 1)};
  for (int axis = 0; axis < points.dim; ++axis) {
    points.hi[axis] = (axis < 2 ? most[axis] : 255.0F) * points.inverse_sigmas[axis];
  }
  return points;
}

inline cuda::Allocate allocate() { return cuda::stream_allocator(nullptr); }

inline cuda::BuildOptions options_of(int dim, std::vector<int> fill, int passes) {
  cuda::BuildOptions options;
  options.side = cuda::Tiling::side_for(dim);
  options.fill = std::move(fill);
  options.passes = passes;
  return options;
}

}  // namespace twins
