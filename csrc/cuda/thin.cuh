// SPDX-License-Identifier: MIT
// Kernels that find structures which smoothing would erase, pixels that no square of a given side
// with one label covers, and make their unary count more. Squares may hang over the border of an
// image by half, as though it went on as it ends. Numbers are counted in integers.
#pragma once

#include <cmath>

#include "cuda/numbers.cuh"
#include "cuda/tile.cuh"

namespace crfseg {
namespace cuda {

using ThinLabel = std::uint16_t;
constexpr ThinLabel mixed_labels = 0xFFFF;      // of a square: not one label; of a pixel: thin
constexpr float log_held_floor = -69.0775528F;  // log 1e-30: the least of probabilities once held

// The first where several are. Padding is never more probable.
template <class T>
CRFSEG_DEVICE int most_probable(const T* row, int width) {
  float top = widened(row[0]);
  int best = 0;
  for (int first = 0; first < width; first += 4) {
    const Quad four = load_log_unary(row + first);
    const float values[4] = {four.x, four.y, four.z, four.w};
    CRFSEG_UNROLL
    for (int i = 0; i < 4; ++i) {
      best = values[i] > top ? first + i : best;
      top = fmaxf(top, values[i]);
    }
  }
  return best;
}

template <class T>
CRFSEG_KERNEL find_most_probable(CRFSEG_CONSTANT Tiling tiling, const T* rows, int width,
                                 ThinLabel* labels) {
  for (std::int64_t tile = block_index(); tile < tiling.n_tiles(); tile += grid_size()) {
    for (int slot = thread_index(); slot < tiling.size(); slot += block_size()) {
      const std::int64_t point = tiling.point(tile, slot);
      if (point < 0) continue;
      labels[tile / tiling.per_item * tiling.n_points + point] = static_cast<ThinLabel>(
          most_probable(rows + (tile * tiling.size() + slot) * width, width));
    }
  }
}

// One axis of (outer, n, inner) arrays: n elements are read, n_out written, each of which looks at
// those of its window that there are: `side` from its own place + `from` on.
struct Window {
  std::int64_t n_outer, n_in, n_out, n_inner;
  int from, side;

  CRFSEG_HD_MEMBER std::int64_t size() const { return n_outer * n_out * n_inner; }
};

// What a window sees: the label that all of it has, or else mixed_labels.
CRFSEG_DEVICE ThinLabel common_label(const ThinLabel* first, std::int64_t stride, std::int64_t n) {
  for (std::int64_t i = 1; i < n; ++i) {
    if (first[i * stride] != first[0]) return mixed_labels;
  }
  return first[0];
}

// Any that is not mixed, or else mixed_labels.
CRFSEG_DEVICE ThinLabel any_label(const ThinLabel* first, std::int64_t stride, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    if (first[i * stride] != mixed_labels) return first[i * stride];
  }
  return mixed_labels;
}

CRFSEG_KERNEL look_through(CRFSEG_CONSTANT Window window, bool wants_common, const ThinLabel* in,
                           ThinLabel* out) {
  for (std::int64_t i = grid_first(); i < window.size(); i += grid_stride()) {
    const std::int64_t inner = i % window.n_inner, line = i / window.n_inner;
    const std::int64_t outer = line / window.n_out, begin = line % window.n_out + window.from;
    const std::int64_t end = begin + window.side;
    const std::int64_t first = begin > 0 ? begin : 0, last = end < window.n_in ? end : window.n_in;
    const ThinLabel* at = in + (outer * window.n_in + first) * window.n_inner + inner;
    out[i] = wants_common ? common_label(at, window.n_inner, last - first)
                          : any_label(at, window.n_inner, last - first);
  }
}

// How many pixels of each item no square covers, added to n_thin.
CRFSEG_KERNEL count_thin(CRFSEG_CONSTANT Tiling tiling, const ThinLabel* covering,
                         std::uint32_t* n_thin) {
  CRFSEG_SHARED(shared);
  auto* room = reinterpret_cast<std::uint32_t*>(shared);
  for (std::int64_t tile = block_index(); tile < tiling.n_tiles(); tile += grid_size()) {
    const std::int64_t item = tile / tiling.per_item;
    std::uint32_t own = 0, total = 0;
    for (int slot = thread_index(); slot < tiling.size(); slot += block_size()) {
      const std::int64_t point = tiling.point(tile, slot);
      own += point >= 0 && covering[item * tiling.n_points + point] == mixed_labels ? 1U : 0U;
    }
    sum_before(own, room, &total);
    if (thread_index() == 0) atomic_add(n_thin + item, total);
  }
}

// What is forbidden stays so.
CRFSEG_DEVICE float held(float log_unary, float top, float factor) {
  if (log_unary <= log_zero) return log_zero;
  return fmaxf(factor * (log_unary - top), log_held_floor);
}

template <class T>
CRFSEG_DEVICE void hold_row(T* row, int width, float factor) {
  float top = log_zero;
  for (int label = 0; label < width; label += 4) {
    const Quad four = load_log_unary(row + label);
    top = fmaxf(top, fmaxf(fmaxf(four.x, four.y), fmaxf(four.z, four.w)));
  }
  for (int label = 0; label < width; label += 4) {
    const Quad four = load_log_unary(row + label);
    store_log_unary(row + label, {held(four.x, top, factor), held(four.y, top, factor),
                                  held(four.z, top, factor), held(four.w, top, factor)});
  }
}

// Where more than half of an item is thin, that is noise, and nothing is held.
template <class T>
CRFSEG_KERNEL hold_points(CRFSEG_CONSTANT Tiling tiling, const ThinLabel* covering,
                          const std::uint32_t* n_thin, float factor, int width, T* rows) {
  for (std::int64_t tile = block_index(); tile < tiling.n_tiles(); tile += grid_size()) {
    const std::int64_t item = tile / tiling.per_item;
    if (2 * std::int64_t{n_thin[item]} > tiling.n_points) continue;
    for (int slot = thread_index(); slot < tiling.size(); slot += block_size()) {
      const std::int64_t point = tiling.point(tile, slot);
      if (point < 0 || covering[item * tiling.n_points + point] != mixed_labels) continue;
      hold_row(rows + (tile * tiling.size() + slot) * width, width, factor);
    }
  }
}

}  // namespace cuda
}  // namespace crfseg
