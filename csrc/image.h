// SPDX-License-Identifier: MIT
// What lies between images and lattices: positions and colours as features, and coarse scores
// brought to the size of an image.
#pragma once

#include <cstdint>

namespace crfseg {

// out: (height * width, 2 + n_channels): x, y and the channels of `image` (height, width,
// n_channels) at every pixel, row by row, each times its inverse sigma.
void image_features(std::int64_t height, std::int64_t width, const float* image,
                    std::int64_t n_channels, const float* inverse_sigmas, int threads, float* out);

// Bilinear upsampling of (n_labels, rows, columns) to (n_labels, height, width). Pixel centres lie
// at (i + 1/2) rows / height - 1/2, or with align_corners at i (rows - 1) / (height - 1); what
// falls outside takes the nearest score.
void upsample(const float* scores, std::int64_t n_labels, std::int64_t rows, std::int64_t columns,
              std::int64_t height, std::int64_t width, bool align_corners, int threads, float* out);

}  // namespace crfseg
