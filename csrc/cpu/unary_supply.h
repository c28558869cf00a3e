// SPDX-License-Identifier: MIT
// Where a mean field's unaries are: in rows of its own, or still with the caller.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "mean_field.h"

namespace crfseg {

// Points that are worked on at a time: few enough for the first-level cache.
inline int batch_points(int width) {
  int batch = 32;
  while (batch > 8 && batch * width > 8192) batch /= 2;
  return batch;
}

// What the caller is shown for an entry of Q: below the smallest that is computed, nothing.
inline float shown(float q) { return q > 2.0F * 8.2718061e-25F ? q : 0.0F; }

kernels::LabelStrip strip_of(const LabelView<const float>& view, std::int64_t begin);

kernels::UnaryStats empty_stats();
// Strips count places in themselves; the report counts them in all points.
UnaryReport merge(const Strips& strips, const std::vector<kernels::UnaryStats>& parts);

}  // namespace crfseg
