// SPDX-License-Identifier: MIT
// What the core can find wrong by itself; everything else is checked, and worded, in Python.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace crfseg {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class NonFiniteFeature : public Error {
 public:
  NonFiniteFeature(std::int64_t where, int which, double found)
      : Error("a feature is not finite"), point(where), axis(which), value(found) {}
  std::int64_t point;
  int axis;
  double value;
};

// The features along `axis` span more than lattice keys (or float32) can tell apart exactly.
class KeyRange : public Error {
 public:
  KeyRange(int which, double low, double high)
      : Error("features span more than exact lattice keys can hold"),
        axis(which),
        lo(low),
        hi(high) {}
  int axis;
  double lo, hi;
};

// What was asked for would not fit into memory.
class TooLarge : public Error {
 public:
  explicit TooLarge(std::int64_t needed)
      : Error("more memory needed than allowed"), bytes(needed) {}
  std::int64_t bytes;
};

}  // namespace crfseg
