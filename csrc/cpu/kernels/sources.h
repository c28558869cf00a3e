// SPDX-License-Identifier: MIT
// Rows of unaries that nobody holds point by point: mixed from coarse scores, or made from labels.
// Everything is static: see kernels.h.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/rows.h"
#include "cpu/kernels/vector.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// Unlike low + share (high - low) it never overflows.
template <class V>
CRFSEG_INLINE V mix(V low, V high, float share) {
  return low * (1.0F - share) + high * share;
}

// Pixels of one image row that lie between the same two columns.
template <class V>
CRFSEG_APART void mix_run(const CoarseSource& from, const Tap& down, const Tap* across, int n,
                          int width, float* rows) {
  const float* upper = from.rows + down.low * from.columns * width;
  const float* lower = from.rows + down.high * from.columns * width;
  const std::int64_t left = across->low * width, right = across->high * width;
  for (int x = 0; x < width; x += Lanes<V>::count) {
    const V low = mix(load<V>(upper + left + x), load<V>(lower + left + x), down.share);
    const V high = mix(load<V>(upper + right + x), load<V>(lower + right + x), down.share);
    for (int p = 0; p < n; ++p) {
      store<V>(rows + p * std::int64_t{width} + x, mix(low, high, across[p].share));
    }
  }
}

CRFSEG_INLINE void mix_rows(const CoarseSource& from, std::int64_t first, int n, int width,
                            float* rows) {
  const std::int64_t pixel = from.first_pixel + first;
  const Tap* down = from.down + pixel / from.image_width;
  std::int64_t x = pixel % from.image_width;
  while (n > 0) {
    if (x == from.image_width) {
      x = 0;
      ++down;
    }
    const Tap* across = from.across + x;
    int run = 1;
    while (run < n && x + run < from.image_width && across[run].low == across->low) ++run;
    if (width == 4) {
      mix_run<V4>(from, *down, across, run, width, rows);
    } else {
      mix_run<Wide>(from, *down, across, run, width, rows);
    }
    n -= run;
    x += run;
    rows += run * std::int64_t{width};
  }
}

// Padding is not probable at all; no matter how large messages are, nothing must go there.
CRFSEG_INLINE V4 log_or_zero(V4 p) { return p > 0.0F ? log_positive(p) : V4{} + log_zero; }

CRFSEG_INLINE void log_mixed(const float* least, int n, int width, float* rows) {
  for (int p = 0; p < n; ++p, rows += width) {
    for (int x = 0; x < width; x += 4) {
      store<V4>(rows + x, log_or_zero(maximum(load<V4>(rows + x), load<V4>(least + x))));
    }
  }
}

// Rows of -U.
CRFSEG_INLINE void label_rows(const LabelSource& from, std::int64_t first, int n, int n_labels,
                              int width, float* rows) {
  for (int p = 0; p < n; ++p, rows += width) {
    const std::int32_t label = from.label[first + p];
    const bool is_known = label >= 0 && label < n_labels;
    copy_row(is_known ? from.logs.others : from.logs.unknown, width, rows);
    if (is_known) rows[label] = from.logs.given;
  }
}

// Rows of p of a slab's labels.
CRFSEG_INLINE void label_rows(const SlabPass& pass, const Slab& slab, std::int64_t first, int n,
                              float* rows) {
  const LabelSource& from = pass.unary.labels;
  for (int p = 0; p < n; ++p, rows += slab.width) {
    const std::int32_t label = from.label[first + p];
    const bool is_known = label >= 0 && label < pass.n_labels;
    copy_row((is_known ? from.start.others : from.start.unknown) + slab.first, slab.width, rows);
    const int at = is_known ? pass.place[label] - slab.first : -1;
    if (at >= 0 && at < slab.n_labels) rows[at] = from.start.given;
  }
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
