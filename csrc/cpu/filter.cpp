// SPDX-License-Identifier: MIT
// Splat, blur, slice of one lattice, with normalisation.
#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>

#include "cpu/corners.h"
#include "cpu/dispatch.h"
#include "cpu/scales.h"
#include "cpu/vertex_rows.h"
#include "parallel.h"

namespace crfseg {
namespace {

void copy_rows(const float* values, std::int64_t n, std::int64_t n_channels, float gain, int width,
               float* rows) {
  for (std::int64_t p = 0; p < n; ++p) {
    float* row = rows + p * width;
    for (std::int64_t c = 0; c < n_channels; ++c) {
      row[c] = values != nullptr ? gain * values[p * n_channels + c] : gain;
    }
    std::fill(row + n_channels, row + width, 0.0F);
  }
}

// S^T B S with its normalisation, on rows of any number of channels; no values stand for ones.
// Returns the blurred rows.
VertexRows filter(const Lattice& lattice, const Scales& scales, bool transpose, const float* values,
                  std::int64_t n_channels, int threads, float* out) {
  const int width = row_width(n_channels);
  const bool padded = width != n_channels;
  VertexRows rows(lattice, width);
  // What blurred rows are to be multiplied by is taken in before they grow.
  const float gain = scales.gain() * rows.gain();
  parallel_for(lattice.strips.count, threads, [&](std::int64_t s) {
    const std::int64_t begin = lattice.strips.begin(s);
    const std::int64_t n = lattice.strips.end(s) - begin;
    Buffer<float> copy(n * width);
    copy_rows(values != nullptr ? values + begin * n_channels : nullptr, n, n_channels, gain, width,
              copy.data());
    active_kernels().splat(corners_of(lattice, s),
                           transpose ? scales.slice(begin) : scales.splat(begin), copy.data(), n,
                           width, rows.cleared_rows(s));
  });
  VertexRows::blur({&rows}, transpose, threads);
  parallel_for(lattice.strips.count, threads, [&](std::int64_t s) {
    const std::int64_t begin = lattice.strips.begin(s);
    const std::int64_t n = lattice.strips.end(s) - begin;
    float* target = out + begin * n_channels;
    Buffer<float> copy(padded ? n * width : 0);
    active_kernels().slice(corners_of(lattice, s),
                           transpose ? scales.splat(begin) : scales.slice(begin), rows.blurred(s),
                           n, width, padded ? copy.data() : target);
    for (std::int64_t p = 0; padded && p < n; ++p) {
      std::copy_n(copy.data() + p * width, n_channels, target + p * n_channels);
    }
  });
  return rows;
}

void invert(bool root, const float* values, std::int64_t n, int threads, float* inverse) {
  parallel_ranges(n, 16384, threads, [&](std::int64_t first, std::int64_t last) {
    if (root) {
      for (std::int64_t i = first; i < last; ++i) inverse[i] = 1.0F / std::sqrt(values[i]);
    } else {
      for (std::int64_t i = first; i < last; ++i) inverse[i] = 1.0F / values[i];
    }
  });
}

}  // namespace

Buffer<float> Lattice::normalizer(int threads) const {
  Buffer<float> sums(n_points);
  filter(*this, Scales{}, false, nullptr, 1, threads, sums.data());
  return sums;
}

const InverseNormalizer& Lattice::inverse_normalizer(bool root, bool of_rows, int threads) const {
  const std::lock_guard<std::mutex> lock(normalizer_mutex_);
  InverseNormalizer& found = root ? root_of_inverse_ : inverse_;
  const bool has_points = found.of_points.size() == n_points;
  if (has_points && (!of_rows || found.of_rows.size() == n_local())) return found;
  Buffer<float> points(n_points), vertices(of_rows ? n_local() : 0);
  const VertexRows rows = filter(*this, Scales{}, false, nullptr, 1, threads, points.data());
  invert(root, points.data(), n_points, threads, points.data());
  if (of_rows) invert(root, rows.blurred(0), n_local(), threads, vertices.data());
  if (!has_points) found.of_points = std::move(points);  // otherwise somebody may be reading them
  found.of_rows = std::move(vertices);
  return found;
}

Scales::Scales(const Lattice& lattice, Normalization normalization, int threads, bool of_rows)
    : on_slice_(normalization == Normalization::after || normalization == Normalization::symmetric),
      on_splat_(normalization == Normalization::before ||
                normalization == Normalization::symmetric) {
  if (normalization == Normalization::none) {
    gain_ = static_cast<float>(lattice_gain(lattice.dim, lattice.fill, lattice.passes));
  } else {
    const bool root = normalization == Normalization::symmetric;
    const InverseNormalizer& found = lattice.inverse_normalizer(root, of_rows, threads);
    scale_ = found.of_points.data();
    rows_ = on_slice_ && of_rows ? found.of_rows.data() : nullptr;
  }
}

void lattice_filter(const Lattice& lattice, Normalization normalization, bool transpose,
                    const float* values, std::int64_t n_channels, int threads, float* out) {
  filter(lattice, Scales(lattice, normalization, threads), transpose, values, n_channels, threads,
         out);
}

}  // namespace crfseg
