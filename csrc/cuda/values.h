// SPDX-License-Identifier: MIT
// Rows of values on a lattice, and the launches that blur them.
#pragma once

#include "cuda/arrays.h"
#include "cuda/lattice.h"

namespace crfseg {
namespace cuda {

class Values {
 public:
  Values(const Lattice& lattice, int width, const Allocate& allocate);

  // Makes zeros of rows that no tile puts sums to, where there may be such.
  void clear(Stream stream);
  // Where tiles put their sums.
  float* partial() const { return partial_.data(); }
  // Splats rows (slots, width), times `scale` of the slots that were built, or null.
  void splat(const float* rows, const float* scale, Stream stream);
  // Adds them up, blurs them, mixes rows by a matrix (n_labels, width): unless *skip. Each says
  // where the result is. `transpose` takes the axes in reverse.
  const float* add_up(const std::uint32_t* skip, Stream stream);
  const float* blur_sums(bool transpose, const std::uint32_t* skip, Stream stream);
  const float* blur(bool transpose, const std::uint32_t* skip, Stream stream);
  const float* mix(const float* rows, const float* matrix, int n_labels, const std::uint32_t* skip,
                   Stream stream);
  // Leaves the result to the caller, and takes new room for the next.
  Array<float> take(const Allocate& allocate);

  std::int64_t nbytes() const;

 private:
  LatticeView view_;
  int passes_, width_;
  Array<float> partial_, rows_, others_;
};

// The number of floats in rows of so many channels.
inline int padded(std::int64_t n_channels) { return static_cast<int>((n_channels + 3) / 4 * 4); }

}  // namespace cuda
}  // namespace crfseg
