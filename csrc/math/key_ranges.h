// SPDX-License-Identifier: MIT
// Which lattice vertices features within bounds can lead to, and how many bits tell them apart.
#pragma once

#include <cstdint>

#include "math/permutohedral.h"

namespace crfseg {

// The quotients that can occur. In a key they are counted from the lowest.
struct KeyRanges {
  int dim = 0;
  float scale[permutohedral::max_dim] = {};  // as permutohedral::elevate wants it
  std::int64_t lowest[permutohedral::max_corners] = {};
  std::int64_t highest[permutohedral::max_corners] = {};
  int bits[permutohedral::max_corners] = {};  // of each quotient in a key; 0: left out
  int omitted = 0, remainder_bits = 0, total_bits = 0;

  // rounds: of filling; lo, hi: (dim) ranges of the features. Throws KeyRange.
  static KeyRanges of(int dim, int passes, int rounds, const float* lo, const float* hi);

  // Where a coordinate's quotient begins in a key.
  int shift(int coordinate) const;

  // Keys lie below this, if they have less than 32 bits.
  std::int64_t end_of_keys() const;
  // The same coordinates packed the way of these ranges: how far apart their keys can be.
  std::int64_t span_of_keys(const KeyRanges& part) const;
};

}  // namespace crfseg
