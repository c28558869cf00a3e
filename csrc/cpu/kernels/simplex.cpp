// SPDX-License-Identifier: MIT
// The simplices of a vector of points at a time. Compiled once per instruction set, never with
// contracted multiply-adds. See kernels.h for what may not be included here.
#include "cpu/kernels/kernels.h"

#define CRFSEG_INLINE static inline __attribute__((always_inline))

namespace crfseg {
namespace permutohedral {
namespace {

// A register's worth: halves of wider vectors would be compared one number at a time.
#if defined(__AVX__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif
typedef float FloatLanes __attribute__((vector_size(4 * lanes)));
typedef std::int32_t IntLanes __attribute__((vector_size(4 * lanes)));

inline IntLanes less(FloatLanes a, FloatLanes b) { return -(a < b); }
inline IntLanes above(IntLanes a, IntLanes b) { return -(a > b); }
inline IntLanes to_int(FloatLanes x) { return __builtin_convertvector(x, IntLanes); }
inline IntLanes keep_if(IntLanes yes, IntLanes x) { return -yes & x; }
inline FloatLanes keep_if(IntLanes yes, FloatLanes x) {
  return reinterpret_cast<FloatLanes>(-yes & reinterpret_cast<IntLanes>(x));
}
inline FloatLanes maximum(FloatLanes a, FloatLanes b) { return a > b ? a : b; }
inline FloatLanes minimum(FloatLanes a, FloatLanes b) { return a < b ? a : b; }

}  // namespace
}  // namespace permutohedral
}  // namespace crfseg

#include "math/permutohedral.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

using permutohedral::FloatLanes;
using permutohedral::IntLanes;
using permutohedral::lanes;
typedef std::uint64_t KeyLanes __attribute__((vector_size(8 * lanes)));

CRFSEG_INLINE KeyLanes widen(IntLanes x) {
  typedef std::int64_t Signed __attribute__((vector_size(8 * lanes)));
  return reinterpret_cast<KeyLanes>(__builtin_convertvector(x, Signed));
}

// Lanes side by side become points one behind the other.
template <int n_corners, class Lanes, class T>
CRFSEG_INLINE void store_points(const Lanes* rows, int corners, int count, T* out) {
  T lane[max_corners][lanes];
  for (int k = 0; k < (n_corners > 0 ? n_corners : corners); ++k) {
    __builtin_memcpy(lane[k], &rows[k], sizeof(Lanes));
  }
  for (int i = 0; i < count; ++i) {
    if (n_corners > 0) {
      for (int k = 0; k < n_corners; ++k) out[i * n_corners + k] = lane[k][i];
    } else {
      for (int k = 0; k < corners; ++k) out[i * corners + k] = lane[k][i];
    }
  }
}

// The vertex of remainder k has lost 1 in the quotients of the k coordinates of highest rank.
template <int fixed_dim>
CRFSEG_INLINE void find_vertices(const SimplexFrame& frame, const IntLanes* quotient,
                                 const IntLanes* rank, IntLanes* vertex) {
  const int dim = fixed_dim > 0 ? fixed_dim : frame.dim;
  IntLanes origin = IntLanes{} - static_cast<std::int32_t>(frame.lowest);
  for (int i = 0; i <= dim; ++i) {
    if (i != frame.omitted) origin += quotient[i] << frame.shift[i];
  }
  for (int k = 0; k <= dim; ++k) vertex[k] = origin + k;
  for (int i = 0; i <= dim; ++i) {
    if (i == frame.omitted) continue;
    const IntLanes unit = IntLanes{} + (1 << frame.shift[i]);
    for (int k = 1; k <= dim; ++k) vertex[k] -= (rank[i] > dim - k) & unit;
  }
}

// The ranks of all coordinates but two, and which of those two comes first.
template <int fixed_dim>
CRFSEG_INLINE KeyLanes find_order(const SimplexFrame& frame, const IntLanes* rank) {
  const int dim = fixed_dim > 0 ? fixed_dim : frame.dim;
  const IntLanes last = -(rank[dim - 1] < rank[dim]);
  if (fixed_dim > 0) {
    constexpr int bits = fixed_dim < 4 ? 2 : 3;  // frame.order_base is 1 << bits
    IntLanes order = {};
    for (int i = 0; i < dim - 1; ++i) order = (order << bits) + rank[i];
    return widen(order + order + last);
  }
  KeyLanes order = {};
  for (int i = 0; i < dim - 1; ++i) order = order * frame.order_base + widen(rank[i]);
  return order + order + widen(last);
}

template <int fixed_dim>
CRFSEG_INLINE KeyLanes find_names(const SimplexFrame& frame, const IntLanes* quotient,
                                  const IntLanes* rank) {
  KeyLanes name = find_order<fixed_dim>(frame, rank);
  if (!frame.names_origin) return name;
  name -= frame.lowest;
  for (int i = 0; i <= (fixed_dim > 0 ? fixed_dim : frame.dim); ++i) {
    if (i != frame.omitted)
      name += widen(quotient[i]) << static_cast<std::uint64_t>(frame.shift[i]);
  }
  return name;
}

template <int fixed_dim>
CRFSEG_INLINE void find_some(const SimplexFrame& frame, int first, SimplexBatch* batch) {
  const int dim = fixed_dim > 0 ? fixed_dim : frame.dim;
  const int corners = dim + 1;
  const int count = batch->count - first < lanes ? batch->count - first : lanes;
  FloatLanes feature[max_corners] = {};
  FloatLanes elevated[max_corners];
  for (int axis = 0; axis < dim; ++axis) {
    __builtin_memcpy(&feature[axis], batch->feature[axis] + first, sizeof(FloatLanes));
  }
  permutohedral::elevate(feature, dim, frame.scale, elevated);
  IntLanes quotient[max_corners];
  IntLanes rank[max_corners];
  FloatLanes weight[max_corners];
  permutohedral::find_simplex(elevated, dim, quotient, rank, weight);
  constexpr int fixed_corners = fixed_dim > 0 ? fixed_dim + 1 : 0;
  store_points<fixed_corners>(weight, corners, count, batch->weight + first * corners);
  if (frame.wants_vertices) {
    IntLanes vertex[max_corners];
    find_vertices<fixed_dim>(frame, quotient, rank, vertex);
    store_points<fixed_corners>(vertex, corners, count, batch->vertex + first * corners);
    return;
  }
  const KeyLanes name = find_names<fixed_dim>(frame, quotient, rank);
  __builtin_memcpy(batch->name + first, &name, sizeof(KeyLanes));
  for (int i = 0; i <= dim; ++i) {
    __builtin_memcpy(batch->rank[i] + first, &rank[i], sizeof(IntLanes));
    if (frame.names_origin) continue;
    __builtin_memcpy(batch->quotient[i] + first, &quotient[i], sizeof(IntLanes));
  }
}

template <int fixed_dim>
static void find_all(const SimplexFrame& frame, SimplexBatch* batch) {
  for (int first = 0; first < batch->count; first += lanes) {
    find_some<fixed_dim>(frame, first, batch);
  }
}

// Positions, grey images and colour images have loops of their own, whose length is known.
void find_simplices(const SimplexFrame& frame, SimplexBatch* batch) {
  switch (frame.dim) {
    case 2:
      return find_all<2>(frame, batch);
    case 3:
      return find_all<3>(frame, batch);
    case 5:
      return find_all<5>(frame, batch);
    default:
      return find_all<0>(frame, batch);
  }
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
