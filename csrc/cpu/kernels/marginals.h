// SPDX-License-Identifier: MIT
// Rows of Q: made from rows of -energy, compared, and handed to the caller in his layout.
// Everything is static: see kernels.h.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/vector.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// Softmax of each of `n` rows in place (K&K 2011, Algorithm 1, "local update" and "normalize").
template <class V, int W>
CRFSEG_APART void softmax_block(float* rows, int n, int vectors) {
  const int lanes = Lanes<V>::count;
  const int count = W > 0 ? W : vectors;
  const int width = count * lanes;
  V part[Lanes<V>::count];
  for (int first = 0; first < n; first += lanes) {
    float* group = rows + first * width;  // a batch is full rows of memory even where n ends early
    for (int p = 0; p < lanes; ++p) {
      V top = load<V>(group + p * width);
      for (int x = 1; x < count; ++x) top = maximum(top, load<V>(group + p * width + x * lanes));
      part[p] = top;
    }
    const V top = reduce_rows<Max>(part);
    for (int p = 0; p < lanes; ++p) {
      V sum = {};
      for (int x = 0; x < count; ++x) {
        float* place = group + p * width + x * lanes;
        const V e = exp2_nonpositive((load<V>(place) - top[p]) * log2_e);
        store<V>(place, e);
        sum += e;
      }
      part[p] = sum;
    }
    const V inverse = 1.0F / reduce_rows<Sum>(part);
    for (int p = 0; p < lanes; ++p) {
      for (int x = 0; x < count; ++x) {
        float* place = group + p * width + x * lanes;
        store<V>(place, load<V>(place) * inverse[p]);
      }
    }
  }
}

CRFSEG_INLINE void softmax(float* rows, int n, int width) {
  if (width == 4) return softmax_block<V4, 1>(rows, n, 1);
  switch (width / 8) {
    case 1:
      return softmax_block<Wide, per_slab>(rows, n, 0);
    case 2:
      return softmax_block<Wide, 2 * per_slab>(rows, n, 0);
    case 3:
      return softmax_block<Wide, 3 * per_slab>(rows, n, 0);
    default:
      return softmax_block<Wide, 0>(rows, n, width / 8 * per_slab);
  }
}

CRFSEG_INLINE void copy(const float* from, std::int64_t n, float* to) {
  __builtin_memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
}

CRFSEG_INLINE void copy_row(const float* from, int width, float* to) {
  for (int x = 0; x < width; x += 4) store<V4>(to + x, load<V4>(from + x));
}

// Calls f(label, values) with the values of eight points, labels in order. Rows behind the last
// point must be readable.
template <class F>
CRFSEG_INLINE void for_labels(const float* rows, int n_labels, int width, F&& f) {
  for (int first = 0; first < n_labels; first += 8) {
    V8 block[8] = {};
    for (int p = 0; p < 8; ++p) {
      if (width == 4) {
        __builtin_memcpy(&block[p], rows + p * width, sizeof(V4));
      } else {
        block[p] = load<V8>(rows + p * width + first);
      }
    }
    transpose(block);
    for (int i = 0; i < 8 && first + i < n_labels; ++i) f(first + i, block[i]);
  }
}

CRFSEG_INLINE void write_out(const LabelStrip& out, std::int64_t first, int n, int n_labels,
                             int width, const float* q) {
  for (int p = 0; p < n; p += 8) {
    const int count = n - p < 8 ? n - p : 8;
    float* place = out.data + (first + p) * out.point_stride;
    for_labels(q + p * width, n_labels, width, [&](int label, V8 value) {
      const V8 shown = value > 2.0F * smallest ? value : V8{};
      float* target = place + label * out.label_stride;
      __builtin_prefetch(target + 32, 1);  // labels lie far apart: too many streams to be foreseen
      if (count == 8 && out.point_stride == 1) {
        store<V8>(target, shown);
      } else {
        for (int lane = 0; lane < count; ++lane) target[lane * out.point_stride] = shown[lane];
      }
    });
  }
}

// The most probable label of each row, the lowest of several.
CRFSEG_INLINE void write_labels(const float* q, int n, int n_labels, int width,
                                std::int32_t* labels) {
  for (int p = 0; p < n; p += 8) {
    const int count = n - p < 8 ? n - p : 8;
    V8 top = V8{} - 1.0F;
    I8 best = {};
    for_labels(q + p * width, n_labels, width, [&](int label, V8 value) {
      best = value > top ? I8{} + label : best;
      top = maximum(value, top);
    });
    __builtin_memcpy(labels + p, &best, sizeof(std::int32_t) * count);
  }
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
