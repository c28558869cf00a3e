// SPDX-License-Identifier: MIT
// Where the points of a strip sit in a lattice, as kernels are told.
#pragma once

#include "cpu/kernels/kernels.h"
#include "lattice.h"

namespace crfseg {

inline kernels::Corners corners_of(const Lattice& lattice, std::int64_t strip) {
  const std::int64_t first = lattice.strips.begin(strip) * (lattice.dim + 1);
  const Buffer<std::uint32_t>& wide = lattice.wide_corner_row[strip];
  const bool is_wide = wide.size() > 0;
  return {lattice.dim + 1, is_wide ? nullptr : lattice.corner_row.data() + first,
          is_wide ? wide.data() : nullptr, lattice.corner_weight.data() + first};
}

}  // namespace crfseg
