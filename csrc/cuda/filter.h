// SPDX-License-Identifier: MIT
// Splat, blur, slice of one lattice on a device, with normalisation.
#pragma once

#include "cuda/arrays.h"
#include "cuda/lattice.h"
#include "kinds.h"

namespace crfseg {
namespace cuda {

// A normalisation as diagonal matrices around the filter: K~ = diag(slice) gain K diag(splat), by
// slots of what was built; null stands for ones.
struct Scales {
  // gain: of the lattice without normalisation (../lattice.h).
  Scales(const Lattice& lattice, Normalization normalization, double gain_of_lattice,
         const Allocate& allocate, Stream stream);

  float gain = 1.0F;
  const float* slice = nullptr;
  const float* splat = nullptr;
  Array<float> of_slots;
};

// out = K~ values, or K~^T values; (n_items, n_points, n_channels) both, contiguous, on the device.
void lattice_filter(const Lattice& lattice, Normalization normalization, double gain_of_lattice,
                    bool transpose, const float* values, std::int64_t n_channels, float* out,
                    const Allocate& allocate, Stream stream);

}  // namespace cuda
}  // namespace crfseg
