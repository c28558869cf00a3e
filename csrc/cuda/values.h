// SPDX-License-Identifier: MIT
// Rows of values on a lattice, and the launches that blur them.
#pragma once

#include "cuda/arrays.h"
#include "cuda/lattice.h"

namespace crfseg {
namespace cuda {

// T: what the rows are stored as.
template <class T>
class ValuesOf {
 public:
  ValuesOf(const Lattice& lattice, int width, const Allocate& allocate);

  // Where tiles put their sums.
  T* partial() const { return partial_.data(); }
  // Adds them up, blurs them, mixes rows by a matrix (n_labels, width): unless *skip. Each says
  // where the result is. `transpose` takes the axes in reverse.
  const T* add_up(const std::uint32_t* skip, Stream stream);
  const T* blur_sums(bool transpose, const std::uint32_t* skip, Stream stream);
  const T* blur(bool transpose, const std::uint32_t* skip, Stream stream);
  const T* mix(const T* rows, const float* matrix, int n_labels, const std::uint32_t* skip,
               Stream stream);

  std::int64_t nbytes() const;

 protected:
  LatticeView view_;
  int passes_, width_;
  Array<T> partial_, rows_, others_;
};

class Values : public ValuesOf<float> {
 public:
  using ValuesOf<float>::ValuesOf;

  // Makes zeros of rows that no tile puts sums to, where there may be such.
  void clear(Stream stream);
  // Splats rows (slots, width), times `scale` of the slots that were built, or null.
  void splat(const float* rows, const float* scale, Stream stream);
  // Leaves the result to the caller, and takes new room for the next.
  Array<float> take(const Allocate& allocate);
};

// The number of values in rows of so many channels.
inline int padded(std::int64_t n_channels) { return static_cast<int>((n_channels + 3) / 4 * 4); }

}  // namespace cuda
}  // namespace crfseg
