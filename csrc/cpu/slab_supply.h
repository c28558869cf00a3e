// SPDX-License-Identifier: MIT
// Labels in slabs of 16 (or up to 24 in one), and what their p = softmax(-U) is read from or made
// of.
//
// Slabs are for leaving labels out, so labels that are left out together had better be together:
// those with the most mass come first. Of those p is held; the others are read from the caller's
// array where a batch of points needs them, unless labels lie next to each other there.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"
#include "cpu/unary_supply.h"
#include "mean_field.h"

namespace crfseg {

class SlabSupply {
 public:
  // width: of the rows that `unary` holds, if it does. Up to `most_together` labels are one slab.
  // p is memory to be used again.
  SlabSupply(const UnarySupply& unary, const Strips& strips, int n_labels, int width,
             int most_together, Buffer<float>* p);

  int n_slabs() const { return static_cast<int>(slabs_.size()); }
  int width() const { return width_; }  // of all slabs together
  const kernels::Slab& slab(int g) const { return slabs_[g]; }
  // Whether p of all slabs is held for all points, so that Q can take its place.
  bool holds_all() const { return n_held_ == n_slabs(); }
  // Whether something per point has to be taken out of scores before they are exponents.
  bool needs_top() const;

  kernels::UnarySource source(std::int64_t strip) const;
  const std::int32_t* place() const { return place_.data(); }
  // The slabs as the strip's points see them.
  std::vector<kernels::Slab> slabs(std::int64_t strip) const;

 private:
  bool mixes_logits() const { return unary_.coarse && unary_.kind == UnaryKind::logits; }
  void cut(int n_labels, int most);
  void hold_p();
  void hold_cells(const CoarseScores& scores);
  void hold_tables(const HardLabels& labels);

  UnarySupply unary_;
  Strips strips_;
  std::vector<std::int32_t> order_, place_;  // (n_labels) each other's inverse
  std::vector<kernels::Slab> slabs_;
  int width_ = 0;
  int n_held_ = 0;  // slabs whose p is held
  Buffer<float>* p_;
  Buffer<float> cells_, least_;          // of coarse scores, slab after slab
  std::vector<float> others_, unknown_;  // of hard labels, (width) each
};

}  // namespace crfseg
