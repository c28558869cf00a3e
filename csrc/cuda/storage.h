// SPDX-License-Identifier: MIT
// What rows in the device's memory may be stored as, where inference is asked to: halves. They are
// half the bytes, and bytes are what its time goes into. Sums, the softmax and the tile that a
// block works on stay float32, and so do weights, marginals that are kept and natural parameters.
//
// Halves have 11 bits, steps of 2^-24 at the least, and end at 65,504; a vertex may collect the
// mass of all points. But how much that can be is known beforehand, and divided by a power of two
// close to it, sums of Q lie in what halves hold: at a vertex labels share what its points bring,
// the blur takes means, and a matrix that mixes labels is divided by its largest entry. What is
// below 2^-40 of the largest sum gets lost. A message feels that in proportion to how its point
// scales what it reads, of which there is a bound as well; where that could be more than 2^-8 of a
// kernel's weight, halves are refused. Of five features these are, with normalisation after, 11
// million points.
//
// Log-unaries count from about their point's highest: logits and energies exactly, probabilities
// and labels as they come, and labels whose energies are all far from 0 are refused. A label that
// is forbidden is -infinity; one of more than 65,504 above the lowest counts as of 65,504.
//
// Q differs from float32's by up to 2e-3, energies by 1e-3 (tests/emulation/storage.cpp). bfloat16
// needs none of this care, but has 8 bits: there Q differs by up to 2e-2, and where it is about to
// tip over, it may tip to the other side. It is refused.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <variant>

#include "cuda/arrays.h"
#include "cuda/half.h"
#include "cuda/lattice.h"
#include "cuda/views.h"
#include "error.h"
#include "kinds.h"
#include "math/blur_shape.h"

namespace crfseg {
namespace cuda {

// Rows cannot be stored as what was asked for.
class TooCoarse : public Error {
 public:
  using Error::Error;
};

constexpr float largest_float16 = 65504.0F;
constexpr float most_label_energy = 16.0F;  // of a label with the least, where halves are stored

// What 1 in a lattice's stored rows stands for.
struct RowUnit {
  float value = 1.0F, inverse = 1.0F;
};

// Rows of values, as what they are stored as.
using StoredArray = std::variant<Array<float>, Array<Float16>>;

inline StoredArray stored_array(FloatType type, std::int64_t size, const Allocate& allocate) {
  if (type == FloatType::bfloat16) throw TooCoarse("bfloat16 is too coarse to store rows as");
  if (type == FloatType::float16) return Array<Float16>(size, allocate);
  return Array<float>(size, allocate);
}

// How large sums at vertices can get, and the scale of what a point reads: its normaliser n is at
// least c b P at each of its vertices, and c / (dim + 1) in all. b is the point's weight there, P
// that of all points, and c what the blur leaves where it is.
struct SumBounds {
  double sum, slice_scale;

  static SumBounds of(const LatticeView& view, int passes, Normalization normalization) {
    const auto n = static_cast<double>(view.tiling.n_points);
    const double corners = view.dim + 1;
    const double c = std::pow(1.0 - 2.0 * BlurShape::of(passes).side, passes * corners);
    switch (normalization) {
      case Normalization::symmetric:
        return {std::sqrt(n / c), std::sqrt(corners / c)};
      case Normalization::before:
        return {std::sqrt(n * corners) / c, 1.0};
      case Normalization::after:
        return {n, corners / c};
      default:
        return {n, 1.0};
    }
  }
};

// For halves. gain: of messages, beside the scale of what a point reads.
inline RowUnit row_unit(const LatticeView& view, int passes, Normalization normalization,
                        float gain) {
  const SumBounds bounds = SumBounds::of(view, passes, normalization);
  const double lost = std::ldexp(bounds.sum * bounds.slice_scale * double{gain}, -40);
  if (lost > std::ldexp(1.0, -8)) {
    throw TooCoarse("a lattice of so many points and dimensions needs rows of float32");
  }
  int exponent = 0;
  std::frexp(bounds.sum, &exponent);
  const auto unit = static_cast<float>(std::ldexp(1.0, exponent - 15));
  return {unit, 1.0F / unit};
}

}  // namespace cuda
}  // namespace crfseg
