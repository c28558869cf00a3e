// SPDX-License-Identifier: MIT
// Where points lie in feature space: given row by row, or made from an image or volume on the fly.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "lattice.h"

namespace crfseg {

struct FeatureRange {
  std::vector<float> lo, hi;  // (dim)
};

class Features {
 public:
  Features(const float* rows, int dim);  // (n, dim)
  explicit Features(const PixelGrid& pixels);

  int dim() const { return dim_; }

  // block[axis][i]: the features of point first + i.
  void load(std::int64_t first, int count, float (*block)[kernels::simplex_batch]) const;

  // Of the points of each strip. Throws NonFiniteFeature.
  std::vector<FeatureRange> ranges(const Strips& strips, int threads) const;

 private:
  FeatureRange range(std::int64_t begin, std::int64_t end) const;
  void load_positions(std::int64_t first, int count, float (*block)[kernels::simplex_batch]) const;
  void bound_positions(std::int64_t first, std::int64_t last, FeatureRange* range) const;
  template <class F>
  void with_columns(std::int64_t point, F&& f) const;
  [[noreturn]] void explain_non_finite(const Strips& strips) const;

  const void* columns_;  // (n, n_columns)
  ChannelType type_ = ChannelType::float32;
  int n_columns_, dim_;
  std::int64_t width_ = 0, height_ = 0;  // of an image or volume; 0: columns are features
  std::vector<float> inverse_sigmas_;
};

}  // namespace crfseg
