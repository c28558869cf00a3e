// SPDX-License-Identifier: MIT
// Where a mean field's unaries are: in rows of its own, or still with the caller.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "mean_field.h"

namespace crfseg {

// Points that are worked on at a time: few enough for the first-level cache.
inline int batch_points(int width) {
  int batch = kernels::most_batched;
  while (batch > 8 && batch * width > 8192) batch /= 2;
  return batch;
}

// What the caller is shown for an entry of Q: below the smallest that is computed, nothing.
inline float shown(float q) { return q > 2.0F * kernels::smallest ? q : 0.0F; }

template <class T>
kernels::LabelStrip strip_of(const LabelView<T>& view, std::int64_t begin) {
  return {const_cast<float*>(view.data) + begin * view.point_stride, view.label_stride,
          view.point_stride};
}

kernels::UnaryStats empty_stats();
// Strips count places in themselves; the report counts them in all points.
UnaryReport merge(const Strips& strips, const std::vector<kernels::UnaryStats>& parts);

// Coarse scores as pixels read them: label-last, and small enough to stay in cache.
class CoarseScores {
 public:
  CoarseScores(LabelView<const float> scores, const CoarseGrid& grid, UnaryKind kind, float clip,
               int width, int threads, UnaryReport* report);

  kernels::CoarseSource from(std::int64_t first_pixel) const;
  std::int64_t n_cells() const { return rows_.size() / width_; }
  const float* cell(std::int64_t i) const { return rows_.data() + i * width_; }
  float least(int label) const { return least_[label]; }
  std::int64_t nbytes() const { return rows_.nbytes() + least_.nbytes(); }

 private:
  Buffer<float> rows_;   // (grid rows, columns, width)
  Buffer<float> least_;  // (width)
  std::vector<Tap> down_, across_;
  std::int64_t columns_;
  int width_;
};

// A label map, and the few rows that its points can have.
class HardLabels {
 public:
  HardLabels(const std::int32_t* labels, const LabelEnergies& energies, int n_labels, int width);

  kernels::LabelSource from(std::int64_t first) const;

 private:
  const std::int32_t* labels_;
  // (width) of points with a label and without, -U and softmax(-U)
  std::vector<float> log_others_, log_unknown_, others_, unknown_;
  float log_given_, given_;
};

}  // namespace crfseg
