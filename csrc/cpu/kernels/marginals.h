// SPDX-License-Identifier: MIT
// Rows of Q: made from rows of -energy, compared, and handed to the caller in his layout.
// Everything is static: see kernels.h.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/vector.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// reduced[p] = op over what f(p, place, vector) makes of each vector of row p; as many rows as V
// has lanes are reduced together.
template <class Op, class V, class F>
CRFSEG_INLINE void reduce_each(float* rows, int n, int width, V start, float* reduced, F&& f) {
  V part[Lanes<V>::count];
  for (int first = 0; first < n; first += Lanes<V>::count) {
    for (int p = 0; p < Lanes<V>::count; ++p) {
      float* row = rows + (first + p) * width;
      part[p] = start;
      for_vectors<V>(width, [&](auto vector, int x) __attribute__((always_inline)) {
        part[p] = accumulated<Op>(part[p], f(first + p, row + x, vector));
      });
    }
    store<V>(reduced + first, reduce_rows<Op>(part));
  }
}

// What p = softmax(-U) is taken for where -U is so much below its largest, times log2(e). What is
// not impossible has a weight that products with it are not denormal.
template <class V>
CRFSEG_INLINE V start_weight(V log) {
  return log < log2_impossible ? V{} : exp2_bounded(maximum(log, V{} + log2_least_start));
}

// Softmax of each of `n` rows in place (K&K 2011, Algorithm 1, "local update" and "normalize").
// Rows are `known_width` floats, or if that is 0 `width`, and are taken in groups of as many as V
// has lanes: a batch is full rows of memory even where n ends early. Each step is done for many
// rows, for each waits for the one before.
template <class V, int known_width>
CRFSEG_APART void softmax_block(float* rows, int n, int any_width) {
  const int width = known_width > 0 ? known_width : any_width;
  float top[most_batched], sum[most_batched];
  n = (n + Lanes<V>::count - 1) / Lanes<V>::count * Lanes<V>::count;
  reduce_each<Max>(rows, n, width, V{} + 2.0F * log_zero, top,
                   [&](int, const float* place, auto vector)
                       __attribute__((always_inline)) { return load<decltype(vector)>(place); });
  for (int p = 0; p < n; ++p) top[p] *= fuses_multiply_add ? log2_e : 1.0F;
  reduce_each<Sum>(rows, n, width, V{}, sum,
                   [&](int p, float* place, auto vector) __attribute__((always_inline)) {
                     const auto z = load<decltype(vector)>(place);
                     const auto e = exp2_nonpositive(fuses_multiply_add ? z * log2_e - top[p]
                                                                        : (z - top[p]) * log2_e);
                     store(place, e);
                     return e;
                   });
  for (int p = 0; p < n; ++p) sum[p] = 1.0F / sum[p];
  for (int p = 0; p < n; ++p) {
    float* row = rows + p * width;
    for_vectors<V>(width, [&](auto vector, int x) __attribute__((always_inline)) {
      store(row + x, load<decltype(vector)>(row + x) * sum[p]);
    });
  }
}

CRFSEG_INLINE void softmax(float* rows, int n, int width) {
  switch (width) {
    case 4:
      return softmax_block<V4, 4>(rows, n, width);
    case 8:
      return softmax_block<Wide, 8>(rows, n, width);
    case 16:
      return softmax_block<Wide, 16>(rows, n, width);
    case 24:
      return softmax_block<Wide, 24>(rows, n, width);
    default:
      return softmax_block<Wide, 0>(rows, n, width);
  }
}

CRFSEG_INLINE void copy(const float* from, std::int64_t n, float* to) {
  __builtin_memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
}

CRFSEG_INLINE void copy_row(const float* from, int width, float* to) {
  for (int x = 0; x < width; x += 4) store<V4>(to + x, load<V4>(from + x));
}

// Calls f(label, values) with the values of as many points as there are lanes, labels in order.
// Rows behind the last point must be readable.
template <class V, class F>
CRFSEG_INLINE void for_labels(const float* rows, int n_labels, int width, F&& f) {
  const int lanes = Lanes<V>::count;
  for (int first = 0; first < n_labels; first += lanes) {
    V block[Lanes<V>::count];
    for (int p = 0; p < lanes; ++p) block[p] = load<V>(rows + p * width + first);
    transpose(block);
    for (int i = 0; i < lanes && first + i < n_labels; ++i) f(first + i, block[i]);
  }
}

// `name` tells which label each is; null: they are in order.
CRFSEG_INLINE std::int32_t label_at(const std::int32_t* name, int i) {
  return name != nullptr ? name[i] : i;
}

template <class V>
CRFSEG_APART void write_rows(const LabelStrip& out, const std::int32_t* name, std::int64_t first,
                             int n, int n_labels, int width, const float* q) {
  const int lanes = Lanes<V>::count;
  for (int p = 0; p < n; p += lanes) {
    const int count = n - p < lanes ? n - p : lanes;
    float* place = out.data + (first + p) * out.point_stride;
    for_labels<V>(q + p * width, n_labels, width, [&](int i, V value) {
      const V shown = value > 2.0F * smallest ? value : V{};
      float* target = place + label_at(name, i) * out.label_stride;
      __builtin_prefetch(target + 32, 1);  // labels lie far apart: too many streams to be foreseen
      if (count == lanes && out.point_stride == 1) {
        store<V>(target, shown);
      } else {
        for (int lane = 0; lane < count; ++lane) target[lane * out.point_stride] = shown[lane];
      }
    });
  }
}

CRFSEG_INLINE void write_out(const LabelStrip& out, const std::int32_t* name, std::int64_t first,
                             int n, int n_labels, int width, const float* q) {
  if (width == 4) return write_rows<V4>(out, name, first, n, n_labels, width, q);
  write_rows<Wide>(out, name, first, n, n_labels, width, q);
}

// The most probable label of each row, the lowest of several; `top` and `best` are those of other
// labels so far.
template <class V>
CRFSEG_APART void best_of_rows(const std::int32_t* name, const float* q, int n, int n_labels,
                               int width, float* top, std::int32_t* best) {
  typedef typename Lanes<V>::Int Int;
  for (int p = 0; p < n; p += Lanes<V>::count) {
    V most = load<V>(top + p);
    Int label;
    __builtin_memcpy(&label, best + p, sizeof(Int));
    for_labels<V>(q + p * width, n_labels, width, [&](int i, V value) {
      const Int here = Int{} + label_at(name, i);
      label = value > most || (value == most && here < label) ? here : label;
      most = maximum(value, most);
    });
    store<V>(top + p, most);
    __builtin_memcpy(best + p, &label, sizeof(Int));
  }
}

CRFSEG_INLINE void find_best(const std::int32_t* name, const float* q, int n, int n_labels,
                             int width, float* top, std::int32_t* best) {
  if (width == 4) return best_of_rows<V4>(name, q, n, n_labels, width, top, best);
  best_of_rows<Wide>(name, q, n, n_labels, width, top, best);
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
