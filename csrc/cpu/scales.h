// SPDX-License-Identifier: MIT
// A normalisation as two diagonal matrices around the filter: K~ = diag(slice) gain K diag(splat).
#pragma once

#include "buffer.h"
#include "lattice.h"

namespace crfseg {

struct Scales {
  Scales() = default;
  Scales(const Lattice& lattice, Normalization normalization, int threads);

  // From one point on; an empty buffer stands for ones.
  static const float* at(const Buffer<float>& scale, std::int64_t point) {
    return scale.size() == 0 ? nullptr : scale.data() + point;
  }

  float gain = 1.0F;
  Buffer<float> slice, splat;
};

}  // namespace crfseg
