// SPDX-License-Identifier: MIT
// What the kernels that find simplices must know of how vertices are packed
// (kernels::SimplexFrame).
#pragma once

#include "cpu/kernels/kernels.h"
#include "math/key_ranges.h"

namespace crfseg {

static_assert(kernels::max_corners == permutohedral::max_corners);

// Bits that tell the orders of a simplex' coordinates apart.
int order_bits(const KeyRanges& ranges);
// Whether 64 bits hold the order and the origin of a simplex.
bool names_fit(const KeyRanges& ranges);
kernels::SimplexFrame simplex_frame(const KeyRanges& ranges, bool wants_vertices);

}  // namespace crfseg
