// SPDX-License-Identifier: MIT
// How a lattice vertex is packed into one integer without loss: the remainder in the lowest bits,
// then the quotients of all coordinates but the widest (math/permutohedral.h; they add up to what
// the remainder tells), each counted from the lowest that can occur. Steps between vertices are
// additions of constants.
#pragma once

#include <cstdint>

#include "math/key_ranges.h"
#include "math/permutohedral.h"

namespace crfseg {

template <class Key>
class KeyLayout {
 public:
  explicit KeyLayout(const KeyRanges& ranges) : dim_(ranges.dim) {
    int shift = ranges.remainder_bits;
    remainder_mask_ = (Key{1} << shift) - 1;
    for (int i = 0; i <= dim_; ++i) {
      lowest_[i] = ranges.lowest[i];
      if (i == ranges.omitted) continue;
      unit_[i] = Key{1} << shift;
      shift += ranges.bits[i];
      wrap_ += unit_[i];
    }
    wrap_ -= static_cast<Key>(dim_ + 1);
  }

  // The vertex of remainder 0 with these quotients, one per coordinate.
  Key origin(const std::int64_t* quotient) const {
    Key key = 0;
    for (int i = 0; i <= dim_; ++i) key += static_cast<Key>(quotient[i] - lowest_[i]) * unit_[i];
    return key;
  }

  // How the key of a vertex of remainder 0 grows with a coordinate's quotient; 0 for the one that
  // is left out.
  CRFSEG_HD_MEMBER Key unit(int coordinate) const { return unit_[coordinate]; }
  CRFSEG_HD_MEMBER std::int64_t lowest(int coordinate) const { return lowest_[coordinate]; }

  // From a simplex' vertex of remainder k to that of k + 1; `coordinate` is the one of rank d - k.
  CRFSEG_HD_MEMBER Key next_corner(Key key, int coordinate) const {
    return key + 1 - unit_[coordinate];
  }

  // One step along an axis: all coordinates +1 but that of the axis, -d. And back. Masks instead of
  // branches, which nothing could predict.
  CRFSEG_HD_MEMBER Key forth(Key key, int axis) const {
    const Key wraps = -Key{(key & remainder_mask_) == static_cast<Key>(dim_)};
    return key + 1 + (wraps & wrap_) - unit_[axis];
  }
  CRFSEG_HD_MEMBER Key back(Key key, int axis) const {
    const Key wraps = -Key{(key & remainder_mask_) == 0};
    return key - 1 - (wraps & wrap_) + unit_[axis];
  }

 private:
  int dim_;
  Key remainder_mask_ = 0;
  Key wrap_ = 0;  // +1 in every quotient, -(d + 1) in the remainder
  Key unit_[permutohedral::max_corners] = {};
  std::int64_t lowest_[permutohedral::max_corners] = {};
};

}  // namespace crfseg
