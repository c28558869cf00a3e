// SPDX-License-Identifier: MIT
// How a lattice vertex is packed into one integer without loss: the remainder in the lowest bits,
// then the quotients of all coordinates but the widest (math/permutohedral.h; they add up to what
// the remainder tells), each counted from the lowest that can occur. Steps between vertices are
// additions of constants.
#pragma once

#include <cstdint>

#include "cpu/kernels/kernels.h"
#include "math/permutohedral.h"

namespace crfseg {

static_assert(kernels::max_corners == permutohedral::max_corners);

// Which quotients a set of features can lead to.
struct KeyRanges {
  int dim = 0;
  float scale[permutohedral::max_dim] = {};  // as permutohedral::elevate wants it
  std::int64_t lowest[permutohedral::max_corners] = {};
  std::int64_t highest[permutohedral::max_corners] = {};
  int bits[permutohedral::max_corners] = {};  // of each quotient in a key; 0: left out
  int omitted = 0, remainder_bits = 0, total_bits = 0;

  // rounds: of filling; lo, hi: (dim) ranges of the features. Throws KeyRange.
  static KeyRanges of(int dim, int passes, int rounds, const float* lo, const float* hi);

  // Keys lie below this, if they have less than 32 bits.
  std::int64_t end_of_keys() const;
  // The same coordinates packed the way of these ranges: how far apart their keys can be.
  std::int64_t span_of_keys(const KeyRanges& part) const;

  int order_bits() const;
  bool names_fit() const { return total_bits - remainder_bits + order_bits() <= 64; }
  kernels::SimplexFrame frame(bool wants_vertices) const;

 private:
  int shift(int coordinate) const;
};

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

  // From a simplex' vertex of remainder k to that of k + 1; `coordinate` is the one of rank d - k.
  Key next_corner(Key key, int coordinate) const { return key + 1 - unit_[coordinate]; }

  // One step along an axis: all coordinates +1 but that of the axis, -d. And back. Masks instead of
  // branches, which nothing could predict.
  Key forth(Key key, int axis) const {
    const Key wraps = -Key{(key & remainder_mask_) == static_cast<Key>(dim_)};
    return key + 1 + (wraps & wrap_) - unit_[axis];
  }
  Key back(Key key, int axis) const {
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
