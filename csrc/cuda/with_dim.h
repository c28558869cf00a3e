// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>
#include <utility>

#include "error.h"

namespace crfseg {
namespace cuda {

// Calls f with dim as a constant, so that what kernels keep of a point stays in registers.
template <class F>
void with_dim(int dim, F&& f) {
  switch (dim) {
#define CRFSEG_DIM(n) \
  case n:             \
    return f(std::integral_constant<int, n>());
    CRFSEG_DIM(1)
    CRFSEG_DIM(2)
    CRFSEG_DIM(3)
    CRFSEG_DIM(4)
    CRFSEG_DIM(5)
    CRFSEG_DIM(6)
    CRFSEG_DIM(7)
    CRFSEG_DIM(8)
    CRFSEG_DIM(9)
    CRFSEG_DIM(10)
    CRFSEG_DIM(11)
    CRFSEG_DIM(12)
    CRFSEG_DIM(13)
    CRFSEG_DIM(14)
    CRFSEG_DIM(15)
    CRFSEG_DIM(16)
#undef CRFSEG_DIM
    default:
      throw Error("a lattice has 1 to 16 dimensions");
  }
}

}  // namespace cuda
}  // namespace crfseg
