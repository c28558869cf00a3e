// SPDX-License-Identifier: MIT
// Slice and splat in two lattices at once. Everything is static: see kernels.h.
//
// Most models have one kernel in x and y and one in colours as well. To walk both in one go takes
// less than one after the other: each point's sums wait for those of the point before in the same
// rows, and the more rows there are, the more there is to do meanwhile.
#pragma once

#include "cpu/kernels/rows.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

CRFSEG_INLINE bool is_pair(const Message* messages, int n_messages) {
  return n_messages == 2 && messages[0].at.corners == 3 && messages[1].at.corners == 6 &&
         messages[0].at.row != nullptr && messages[1].at.row != nullptr;
}

// values += scale * sum over corners of weight * rows[corner]
template <int corners, class B>
CRFSEG_INLINE void slice_point(B block, const std::uint16_t* row, const float* weight, float scale,
                               const float* rows, typename B::V* values) {
  typedef typename B::V V;
  V sum[B::W];
  for (int j = 0; j < corners; ++j) {
    const float* source = rows + block.row(row[j]);
    for (int x = 0; x < B::W; ++x) {
      const V part = load<V>(source + x * B::lanes) * weight[j];
      sum[x] = j > 0 ? sum[x] + part : part;
    }
  }
  for (int x = 0; x < B::W; ++x) values[x] += sum[x] * scale;
}

// rows[corner] += weight * scale * value
template <int corners, class B>
CRFSEG_INLINE void splat_point(B block, const std::uint16_t* row, const float* weight, float scale,
                               const typename B::V* values, float* rows) {
  typedef typename B::V V;
  V scaled[B::W];
  for (int x = 0; x < B::W; ++x) scaled[x] = values[x] * scale;
  for (int j = 0; j < corners; ++j) {
    float* target = rows + block.row(row[j]);
    for (int x = 0; x < B::W; ++x) {
      float* place = target + x * B::lanes;
      store<V>(place, load<V>(place) + scaled[x] * weight[j]);
    }
  }
}

// The points of a batch in one lattice, with a scale for each.
struct Points {
  Corners at;
  const float* scale;
};

// Stands for scales where there are none. To be a constant: nothing here may run before the
// instruction set is chosen.
template <int n>
struct Ones {
  constexpr Ones() : values() {
    for (float& value : values) value = 1.0F;
  }
  float values[n];
};

template <class B>
CRFSEG_APART void slice_pair(B block, Points a, Points b, const float* from_a, const float* from_b,
                             int n, float* values) {
  typedef typename B::V V;
  for (int p = 0; p < n; ++p) {
    V sum[B::W] = {};
    slice_point<3>(block, a.at.row + 3 * p, a.at.weight + 3 * p, a.scale[p], from_a, sum);
    slice_point<6>(block, b.at.row + 6 * p, b.at.weight + 6 * p, b.scale[p], from_b, sum);
    float* place = values + block.row(p);
    for (int x = 0; x < B::W; ++x) store<V>(place + x * B::lanes, sum[x]);
  }
}

template <class B>
CRFSEG_APART void splat_pair(B block, Points a, Points b, const float* values, int n, float* to_a,
                             float* to_b) {
  typedef typename B::V V;
  for (int p = 0; p < n; ++p) {
    V value[B::W];
    const float* place = values + block.row(p);
    for (int x = 0; x < B::W; ++x) value[x] = load<V>(place + x * B::lanes);
    splat_point<3>(block, a.at.row + 3 * p, a.at.weight + 3 * p, a.scale[p], value, to_a);
    splat_point<6>(block, b.at.row + 6 * p, b.at.weight + 6 * p, b.scale[p], value, to_b);
  }
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
