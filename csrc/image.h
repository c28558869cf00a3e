// SPDX-License-Identifier: MIT
// Coarse scores brought to the size of an image.
#pragma once

#include <cstdint>

namespace crfseg {

// Bilinear upsampling of (n_labels, rows, columns) to (n_labels, height, width). Pixel centres lie
// at (i + 1/2) rows / height - 1/2, or with align_corners at i (rows - 1) / (height - 1); what
// falls outside takes the nearest score.
void upsample(const float* scores, std::int64_t n_labels, std::int64_t rows, std::int64_t columns,
              std::int64_t height, std::int64_t width, bool align_corners, int threads, float* out);

// How coarse scores, row by row, lie on an image.
struct CoarseGrid {
  std::int64_t rows, columns, height, width;
  bool align_corners;
};

}  // namespace crfseg
