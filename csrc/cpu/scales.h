// SPDX-License-Identifier: MIT
// A normalisation as diagonal matrices around the filter: K~ = diag(slice) gain K diag(splat).
// Where both are there they are the same. They lie with the lattice, which has to live as long.
#pragma once

#include <cstdint>

#include "lattice.h"

namespace crfseg {

class Scales {
 public:
  Scales() = default;
  Scales(const Lattice& lattice, Normalization normalization, int threads, bool of_rows = false);

  // What the points from `point` on are multiplied by when sliced and when splat; null stands for
  // ones.
  const float* slice(std::int64_t point) const { return on_slice_ ? scale_ + point : nullptr; }
  const float* splat(std::int64_t point) const { return on_splat_ ? scale_ + point : nullptr; }
  // (n_local) the same as slice for rows of the lattice, if asked for; null stands for ones. For
  // any values >= 0, what a point reads times its scale is at most the largest of the rows it reads
  // times theirs.
  const float* of_rows() const { return rows_; }
  float gain() const { return gain_; }

 private:
  float gain_ = 1.0F;
  bool on_slice_ = false, on_splat_ = false;
  const float* scale_ = nullptr;  // the lattice's
  const float* rows_ = nullptr;
};

}  // namespace crfseg
