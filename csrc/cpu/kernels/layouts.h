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

// The values of a label at `count` points, which may be fewer than there are lanes.
template <class V>
CRFSEG_INLINE V read_tile(const LabelStrip& in, std::int64_t first, int count, int label) {
  const float* place = in.data + first * in.point_stride + label * in.label_stride;
  if (count == Lanes<V>::count && in.point_stride == 1) return load<V>(place);
  V values = {};
  for (int lane = 0; lane < count; ++lane) values[lane] = place[lane * in.point_stride];
  return values;
}

// Rows of `count` points from what f(label) says of all of them, behind the labels of `padding`.
template <class V, class F>
CRFSEG_INLINE void make_rows(int count, int n_labels, int width, float padding, float* rows,
                             F&& f) {
  const int lanes = Lanes<V>::count;
  for (int label = 0; label < width; label += lanes) {
    V block[Lanes<V>::count];
    for (int i = 0; i < lanes; ++i) block[i] = label + i < n_labels ? f(label + i) : V{} + padding;
    transpose(block);
    for (int lane = 0; lane < count; ++lane) store<V>(rows + lane * width + label, block[lane]);
  }
}

// Calls f(p, count) for groups of points, as many as there are lanes in each.
template <class V, class F>
CRFSEG_INLINE void for_groups(int n, F&& f) {
  for (int p = 0; p < n; p += Lanes<V>::count) {
    f(p, n - p < Lanes<V>::count ? n - p : static_cast<int>(Lanes<V>::count));
  }
}

// Rows of n points from `first` on, whatever the layout.
template <class V>
CRFSEG_APART void read_rows(const LabelStrip& in, std::int64_t first, int n, int n_labels,
                            int width, float* rows) {
  for_groups<V>(n, [&](int p, int count) __attribute__((always_inline)) {
    make_rows<V>(count, n_labels, width, 0.0F, rows + p * width,
                 [&](int label) __attribute__((always_inline)) {
                   return read_tile<V>(in, first + p, count, label);
                 });
  });
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
