// SPDX-License-Identifier: MIT
// What of its own value a point gets back: the diagonal of a filter on a device, to be left out.
#pragma once

#include "cuda/arrays.h"
#include "cuda/filter.h"
#include "cuda/lattice.h"

namespace crfseg {
namespace cuda {

// By slots of what was built, the gain of the scales left out.
Array<float> self_response(const Lattice& lattice, const Scales& scales, const Allocate& allocate,
                           Stream stream);

// By points, gain and all: (n_items, n_points), or (1, n_points) where the lattice is repeated.
void self_response(const Lattice& lattice, Normalization normalization, double gain_of_lattice,
                   float* out, const Allocate& allocate, Stream stream);

}  // namespace cuda
}  // namespace crfseg
