// SPDX-License-Identifier: MIT
// What unary.cpp offers to the passes over points.
#pragma once

#include "cpu/kernels/kernels.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// Rows of -U, up to a constant per point, of n points from `first` on. Rows up to the next multiple
// of eight must be writable and hold numbers.
void read_unary(const UnarySource& from, std::int64_t first, int n, int n_labels, int width,
                float* rows, UnaryStats* stats);

// Rows of a slab in the scratch; behind the last slab there is room for one more.
static inline float* slab_rows(const SlabPass& pass, int slab) {
  return pass.scratch + slab * std::int64_t{widest_slab} * pass.batch;
}

// p of a batch of points, to where slabs hold it and otherwise to the scratch, and (n_slabs, batch)
// sums over the labels of each slab.
void read_slabs(const SlabPass& pass, std::int64_t first, int n, float* sums);
// p of a slab alone, once all have been read.
void read_slab(const SlabPass& pass, const Slab& slab, std::int64_t first, int n, float* rows);

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
