// SPDX-License-Identifier: MIT
#include "cpu/field_kernel.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "cpu/corners.h"
#include "cpu/slab_supply.h"

namespace crfseg {

FieldKernel::FieldKernel(std::shared_ptr<const Lattice> shared, Normalization mode, float weight,
                         const Compatibility& mu, bool exclude_self, int n_labels, int width,
                         int threads)
    : lattice_(std::move(shared)),
      scales_(*lattice_, mode, threads, n_labels > kernels::slab_width),
      width_(width),
      normalization_(mode),
      weight_(weight),
      kind_(mu.kind),
      n_labels_(n_labels) {
  const float of_sums = weight * scales_.gain();
  factor_ = message_factors(mu, of_sums, n_labels, width);
  if (kind_ == Compatibility::Kind::matrix) {
    matrix_ = message_matrix(mu, of_sums, n_labels, width);
  }
  if (exclude_self) {
    self_.resize(lattice_->n_points);
    crfseg::self_response(*lattice_, threads, self_.data());
    for (std::int64_t p = 0; p < self_.size(); ++p) {
      if (scales_.slice(p) != nullptr) self_[p] *= *scales_.slice(p);
      if (scales_.splat(p) != nullptr) self_[p] *= *scales_.splat(p);
    }
  }
}

kernels::Message FieldKernel::points(std::int64_t strip) const {
  const std::int64_t begin = lattice_->strips.begin(strip);
  kernels::Message m{};
  m.at = corners_of(*lattice_, strip);
  m.slice_scale = scales_.slice(begin);
  m.splat_scale = scales_.splat(begin);
  return m;
}

kernels::Message FieldKernel::message(std::int64_t strip, float* incoming, bool splat) {
  kernels::Message m = points(strip);
  if (excludes_self()) {
    m.self = self_.data() + lattice_->strips.begin(strip);
    m.self_factor = factor_.data();
    m.self_rows = kind_ == Compatibility::Kind::matrix ? matrix_.data() : nullptr;
  }
  // In this order: blurred rows may lie where the sums will.
  if (incoming != nullptr) m.incoming = rows_[0].fetch(strip, incoming);
  if (splat) m.outgoing = rows_[0].cleared_rows(strip);
  return m;
}

void FieldKernel::hold_labels() {
  if (!rows_.empty() && held_ == Held::labels) return;
  held_ = Held::labels;
  rows_.clear();
  rows_.emplace_back(*lattice_, width_, factor_);
}

void FieldKernel::hold_difference() {
  if (!rows_.empty() && held_ == Held::difference) return;
  held_ = Held::difference;
  rows_.clear();
  rows_.emplace_back(*lattice_, 1, std::vector<float>{factor_[0]});
}

void FieldKernel::hold_slabs(const SlabSupply& labels) {
  held_ = Held::slabs;
  rows_.clear();
  for (int g = 0; g < labels.n_slabs(); ++g) {
    const kernels::Slab& slab = labels.slab(g);
    std::vector<float> factor(static_cast<std::size_t>(slab.width), 0.0F);
    for (int i = 0; i < slab.n_labels; ++i) factor[i] = kernels::log2_e * factor_[slab.label[i]];
    rows_.emplace_back(*lattice_, slab.width, factor);
  }
}

void FieldKernel::list_rows(std::vector<VertexRows*>* all) {
  for (VertexRows& rows : rows_) all->push_back(&rows);
}

bool FieldKernel::attracts() const {
  return kind_ != Compatibility::Kind::matrix &&
         std::all_of(factor_.begin(), factor_.end(), [](float f) { return f >= 0.0F; });
}

std::int64_t FieldKernel::nbytes() const {
  std::int64_t sum = self_.nbytes();
  for (const VertexRows& rows : rows_) sum += rows.nbytes();
  return sum;
}

double FieldKernel::half_total_weight(int threads) {
  if (!half_total_) {
    const std::vector<float> ones(static_cast<std::size_t>(lattice_->n_points), 1.0F);
    std::vector<float> mass(ones.size());
    lattice_filter(*lattice_, normalization_, false, ones.data(), 1, threads, mass.data());
    double total = 0.0;
    for (const float m : mass) total += static_cast<double>(m);
    for (const float s : self_) total -= static_cast<double>(s * scales_.gain());
    half_total_ = 0.5 * static_cast<double>(weight_) * total;
  }
  return *half_total_;
}

void FieldKernel::mix(int threads) {
  if (kind_ == Compatibility::Kind::matrix) rows_[0].mix(matrix_.data(), n_labels_, threads);
}

std::int64_t most_rows(const std::vector<std::unique_ptr<FieldKernel>>& kernels,
                       const Strips& strips) {
  std::int64_t most = 0;
  for (std::int64_t s = 0; s < strips.count; ++s) {
    std::int64_t rows = 0;
    for (const auto& kernel : kernels) rows += kernel->lattice().local_rows(s);
    most = std::max(most, rows);
  }
  return most;
}

std::vector<FieldKernel*> by_corners(const std::vector<std::unique_ptr<FieldKernel>>& kernels) {
  std::vector<FieldKernel*> list;
  for (const auto& kernel : kernels) list.push_back(kernel.get());
  std::stable_sort(list.begin(), list.end(), [](const FieldKernel* a, const FieldKernel* b) {
    return a->lattice().dim < b->lattice().dim;
  });
  return list;
}

}  // namespace crfseg
