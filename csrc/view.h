// SPDX-License-Identifier: MIT
// Arrays that belong to the caller.
#pragma once

#include <cstdint>

namespace crfseg {

// (labels, points) with strides counted in elements: (C, H, W) and (H, W, C) arrays alike.
template <class T>
struct LabelView {
  T* data = nullptr;
  std::int64_t n_labels = 0, n_points = 0;
  std::int64_t label_stride = 0, point_stride = 0;

  T& operator()(std::int64_t label, std::int64_t point) const {
    return data[label * label_stride + point * point_stride];
  }
  explicit operator bool() const { return data != nullptr; }
  std::int64_t nbytes() const { return n_labels * n_points * std::int64_t{sizeof(T)}; }
  bool is_one_piece() const {
    return (point_stride == 1 && label_stride == n_points) ||
           (label_stride == 1 && point_stride == n_labels);
  }
};

// The points are worked on in strips of a size that depends on nothing but their number: sums are
// formed strip by strip and then over strips in order, so no result depends on how many threads
// ran.
struct Strips {
  std::int64_t n_points = 0, size = 1, count = 0;

  static Strips of(std::int64_t n_points);
  std::int64_t begin(std::int64_t strip) const { return strip * size; }
  std::int64_t end(std::int64_t strip) const {
    return (strip + 1) * size < n_points ? (strip + 1) * size : n_points;
  }
};

}  // namespace crfseg
