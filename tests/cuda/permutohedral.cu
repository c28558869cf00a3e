// SPDX-License-Identifier: MIT
// The lattice's arithmetic as device code: it has to compile there, with no function of the host.
#include "math/permutohedral.h"

namespace permutohedral = crfseg::permutohedral;

__global__ void elevate_points(const float* features, int n_points, int dim, const float* scale,
                               float* elevated) {
  const int point = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (point >= n_points) return;
  permutohedral::elevate(features + point * dim, dim, scale, elevated + point * (dim + 1));
}

__global__ void find_simplices(const float* elevated, int n_points, int dim, int* quotient,
                               int* rank, float* weight) {
  const int point = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (point >= n_points) return;
  const int first = point * (dim + 1);
  permutohedral::find_simplex(elevated + first, dim, quotient + first, rank + first,
                              weight + first);
}
