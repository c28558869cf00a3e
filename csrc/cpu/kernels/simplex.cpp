// SPDX-License-Identifier: MIT
// The simplices of eight points at a time. Compiled once per instruction set, never with contracted
// multiply-adds. See kernels.h for what may not be included here.
#include "cpu/kernels/kernels.h"

namespace crfseg {
namespace permutohedral {
namespace {

typedef float FloatLanes __attribute__((vector_size(4 * kernels::simplex_lanes)));
typedef std::int32_t IntLanes __attribute__((vector_size(4 * kernels::simplex_lanes)));

inline IntLanes less(FloatLanes a, FloatLanes b) { return -(a < b); }
inline IntLanes equal(IntLanes a, IntLanes b) { return -(a == b); }
inline IntLanes above(IntLanes a, IntLanes b) { return -(a > b); }
inline IntLanes to_int(FloatLanes x) { return __builtin_convertvector(x, IntLanes); }
inline FloatLanes to_float(IntLanes x) { return __builtin_convertvector(x, FloatLanes); }
inline FloatLanes keep_if(IntLanes yes, FloatLanes x) {
  return reinterpret_cast<FloatLanes>(-yes & reinterpret_cast<IntLanes>(x));
}

}  // namespace
}  // namespace permutohedral
}  // namespace crfseg

#include "math/permutohedral.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

typedef std::uint64_t KeyLanes __attribute__((vector_size(8 * simplex_lanes)));

static inline KeyLanes widen(permutohedral::IntLanes x) {
  typedef std::int64_t Signed __attribute__((vector_size(8 * simplex_lanes)));
  return reinterpret_cast<KeyLanes>(__builtin_convertvector(x, Signed));
}

void find_simplices(const SimplexFrame& frame, const float* features, int count, Simplices* out) {
  using permutohedral::FloatLanes;
  using permutohedral::IntLanes;
  const int dim = frame.dim;
  FloatLanes feature[max_corners] = {};
  FloatLanes elevated[max_corners] = {};
  for (int axis = 0; axis < dim; ++axis) {
    for (int lane = 0; lane < count; ++lane) feature[axis][lane] = features[lane * dim + axis];
  }
  permutohedral::elevate(feature, dim, frame.scale, elevated);
  IntLanes quotient[max_corners];
  IntLanes rank[max_corners];
  FloatLanes weight[max_corners];
  permutohedral::find_simplex(elevated, dim, quotient, rank, weight);

  // The ranks of all coordinates but two, and which of those two comes first.
  KeyLanes origin = KeyLanes{} - frame.lowest;
  KeyLanes order = {};
  for (int i = 0; i < dim; ++i) {
    origin += widen(quotient[i]) << static_cast<std::uint64_t>(frame.shift[i]);
    if (i < dim - 1) order = order * static_cast<std::uint64_t>(dim + 1) + widen(rank[i]);
  }
  order = order + order + widen(-(rank[dim - 1] < rank[dim]));

  __builtin_memcpy(out->origin, &origin, sizeof(KeyLanes));
  __builtin_memcpy(out->order, &order, sizeof(KeyLanes));
  for (int i = 0; i <= dim; ++i) {
    __builtin_memcpy(out->quotient[i], &quotient[i], sizeof(IntLanes));
    __builtin_memcpy(out->rank[i], &rank[i], sizeof(IntLanes));
    __builtin_memcpy(out->weight[i], &weight[i], sizeof(FloatLanes));
  }
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
