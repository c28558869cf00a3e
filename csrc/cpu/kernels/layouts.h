// SPDX-License-Identifier: MIT
// Rows of values, gradients among them, from the caller's layout and back, batch by batch. Unlike
// marginals they may have any sign. Everything is static: see kernels.h.
#pragma once

#include "cpu/kernels/marginals.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// Calls f with the vector that rows of this width are made of.
template <class F>
CRFSEG_INLINE void with_vector(int width, F&& f) {
  if (width == 4) return f(V4{});
  f(Wide{});
}

// Rows of n points from `first` on, whatever the layout; rows hold `padding` behind the labels.
template <class V>
CRFSEG_APART void read_rows(const LabelStrip& in, std::int64_t first, int n, int n_labels,
                            int width, float padding, float* rows) {
  const int lanes = Lanes<V>::count;
  for (int p = 0; p < n; p += lanes) {
    const int count = n - p < lanes ? n - p : lanes;
    const float* place = in.data + (first + p) * in.point_stride;
    for (int label = 0; label < width; label += lanes) {
      V block[Lanes<V>::count];
      for (int i = 0; i < lanes; ++i) {
        block[i] = V{} + padding;
        if (label + i >= n_labels) continue;
        const float* from = place + (label + i) * in.label_stride;
        if (count == lanes && in.point_stride == 1) {
          block[i] = load<V>(from);
        } else {
          for (int lane = 0; lane < count; ++lane) block[i][lane] = from[lane * in.point_stride];
        }
      }
      transpose(block);
      for (int lane = 0; lane < count; ++lane) {
        store<V>(rows + (p + lane) * width + label, block[lane]);
      }
    }
  }
}

// Rows times a factor; those behind the last point, up to the next multiple of eight, must be
// readable.
template <class V>
CRFSEG_APART void write_values(const LabelStrip& out, std::int64_t first, int n, int n_labels,
                               int width, const float* rows, float factor) {
  const int lanes = Lanes<V>::count;
  for (int p = 0; p < n; p += lanes) {
    const int count = n - p < lanes ? n - p : lanes;
    float* place = out.data + (first + p) * out.point_stride;
    for_labels<V>(rows + p * width, n_labels, width, [&](int label, V read) {
      const V value = read * factor;
      float* target = place + label * out.label_stride;
      if (count == lanes && out.point_stride == 1) {
        store<V>(target, value);
      } else {
        for (int lane = 0; lane < count; ++lane) target[lane * out.point_stride] = value[lane];
      }
    });
  }
}

// Calls f(first, n) for batches of points; `rows` (batch, width) are what passes take in groups,
// and must hold numbers behind the last point.
template <class F>
CRFSEG_INLINE void for_batches(std::int64_t n_points, int batch, int width, float* rows, F&& f) {
  for (std::int64_t first = 0; first < n_points; first += batch) {
    const int n = static_cast<int>(n_points - first < batch ? n_points - first : batch);
    if (n < batch) __builtin_memset(rows, 0, sizeof(float) * batch * width);
    f(first, n);
  }
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
