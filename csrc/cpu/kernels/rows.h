// SPDX-License-Identifier: MIT
// Slice and splat of rows of labels, a block of vectors at a time. Everything is static: see
// kernels.h.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/vector.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// What a block of code handles of each row: `vectors` vectors V from `column` on. In narrow rows
// that is all there is, and their length is known to the compiler.
template <class Vector, int vectors, bool whole_row>
struct Block {
  typedef Vector V;
  enum { W = vectors, lanes = Lanes<Vector>::count };
  int width, column;

  std::int64_t row(std::int64_t i) const {
    return whole_row ? i * (vectors * lanes) : i * width + column;
  }
};

// Calls f with blocks for the columns from `column` to `end`.
template <class F>
CRFSEG_INLINE void for_part(int width, int column, int end, F&& f) {
  for (; end - column >= 32; column += 32) f(Block<Wide, 4 * per_slab, false>{width, column});
  switch (end - column) {
    case 8:
      return f(Block<Wide, per_slab, false>{width, column});
    case 16:
      return f(Block<Wide, 2 * per_slab, false>{width, column});
    case 24:
      return f(Block<Wide, 3 * per_slab, false>{width, column});
    default:
      return;
  }
}

// Calls f with the widest blocks that fit, until all floats of a row are done.
template <class F>
CRFSEG_INLINE void for_blocks(int width, F&& f) {
  switch (width) {
    case 1:
      return f(Block<float, 1, true>{width, 0});
    case 4:
      return f(Block<V4, 1, true>{width, 0});
    case 8:
      return f(Block<Wide, per_slab, true>{width, 0});
    case 16:
      return f(Block<Wide, 2 * per_slab, true>{width, 0});
    case 24:
      return f(Block<Wide, 3 * per_slab, true>{width, 0});
    default:
      return for_part(width, 0, width, f);
  }
}

// The same for what only loads, stores, adds and multiplies.
template <class F>
CRFSEG_INLINE void for_rows(int width, F&& f) {
#if defined(__AVX512F__)
  if (width == 16) return f(Block<V16, 1, true>{width, 0});
  if (width == 24) return f(Block<V24, 1, true>{width, 0});
#endif
  for_blocks(width, f);
}

enum { prefetch_points = 48 };  // unaries come from memory: ask for them a batch and a half ahead

CRFSEG_INLINE void prefetch_row(const float* row) {
  __builtin_prefetch(row);
  __builtin_prefetch(row + 16);  // a cache line on: rows of 24 floats straddle two
}

// Rows of corners as wide as they are.
template <class Row>
CRFSEG_INLINE const Row* rows_from(const Corners& at, std::int64_t point) {
  const std::int64_t i = point * at.corners;
  if constexpr (sizeof(Row) == sizeof(*at.row)) {
    return at.row + i;
  } else {
    return at.wide_row + i;
  }
}

template <int C, class Row>
struct CornerKind {
  static constexpr int corners = C;
  typedef Row Index;
};

// Images have 2 spatial dimensions and mostly 3 colours: 3 and 6 corners deserve code of their own.
template <class Row, class F>
CRFSEG_INLINE void for_number_of_corners(int corners, F&& f) {
  switch (corners) {
    case 3:
      return f(CornerKind<3, Row>{});
    case 4:
      return f(CornerKind<4, Row>{});
    case 6:
      return f(CornerKind<6, Row>{});
    default:
      return f(CornerKind<0, Row>{});
  }
}

template <class F>
CRFSEG_INLINE void for_corners(const Corners& at, F&& f) {
  if (at.row != nullptr) return for_number_of_corners<std::uint16_t>(at.corners, f);
  for_number_of_corners<std::uint32_t>(at.corners, f);
}

// values[p] = base[p] + scale * sum over corners of weight * rows[corner]; no base is zero.
template <class B, class Kind>
CRFSEG_APART void slice_block(B block, Corners at, const float* scale, const float* rows,
                              const float* base, std::int64_t n, float* values) {
  typedef typename B::V V;
  const int corners = Kind::corners > 0 ? Kind::corners : at.corners;
  for (std::int64_t p = 0; p < n; ++p) {
    const auto* row = rows_from<typename Kind::Index>(at, p);
    const float* weight = at.weight + p * corners;
    V sum[B::W];
    const float* source = rows + block.row(row[0]);
    for (int x = 0; x < B::W; ++x) sum[x] = load<V>(source + x * B::lanes) * weight[0];
    for (int j = 1; j < corners; ++j) {
      source = rows + block.row(row[j]);
      for (int x = 0; x < B::W; ++x) sum[x] += load<V>(source + x * B::lanes) * weight[j];
    }
    const float factor = scale != nullptr ? scale[p] : 1.0F;
    float* target = values + block.row(p);
    if (base != nullptr && base != values) prefetch_row(base + block.row(p + prefetch_points));
    const float* start = base != nullptr ? base + block.row(p) : nullptr;
    for (int x = 0; x < B::W; ++x) {
      const V from = start != nullptr ? load<V>(start + x * B::lanes) : V{};
      store<V>(target + x * B::lanes, from + sum[x] * factor);
    }
  }
}

template <class B, class Kind>
CRFSEG_APART void splat_block(B block, Corners at, const float* scale, const float* values,
                              std::int64_t n, float* rows) {
  typedef typename B::V V;
  const int corners = Kind::corners > 0 ? Kind::corners : at.corners;
  for (std::int64_t p = 0; p < n; ++p) {
    const auto* row = rows_from<typename Kind::Index>(at, p);
    const float* weight = at.weight + p * corners;
    const float factor = scale != nullptr ? scale[p] : 1.0F;
    const float* source = values + block.row(p);
    V value[B::W];
    for (int x = 0; x < B::W; ++x) value[x] = load<V>(source + x * B::lanes) * factor;
    for (int j = 0; j < corners; ++j) {
      float* target = rows + block.row(row[j]);
      for (int x = 0; x < B::W; ++x) {
        float* place = target + x * B::lanes;
        store<V>(place, load<V>(place) + value[x] * weight[j]);
      }
    }
  }
}

CRFSEG_INLINE void slice_rows(Corners at, const float* scale, const float* rows, const float* base,
                              std::int64_t n, int width, float* values) {
  for_rows(width, [&](auto block) {
    for_corners(at, [&](auto kind) {
      slice_block<decltype(block), decltype(kind)>(block, at, scale, rows, base, n, values);
    });
  });
}

CRFSEG_INLINE void splat_rows(Corners at, const float* scale, const float* values, std::int64_t n,
                              int width, float* rows) {
  for_rows(width, [&](auto block) {
    for_corners(at, [&](auto kind) {
      splat_block<decltype(block), decltype(kind)>(block, at, scale, values, n, rows);
    });
  });
}

CRFSEG_INLINE Corners from_point(const Corners& at, std::int64_t first) {
  const std::int64_t i = first * at.corners;
  return {at.corners, at.row != nullptr ? at.row + i : nullptr,
          at.wide_row != nullptr ? at.wide_row + i : nullptr, at.weight + i};
}
CRFSEG_INLINE const float* from_point(const float* scale, std::int64_t first) {
  return scale != nullptr ? scale + first : nullptr;
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
