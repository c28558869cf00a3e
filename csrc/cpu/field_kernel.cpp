// SPDX-License-Identifier: MIT
#include "cpu/field_kernel.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "cpu/corners.h"

namespace crfseg {
namespace {

// Rows (n_labels, width) of -w gain mu: row b holds what label b adds to every label.
std::vector<float> message_matrix(const Compatibility& compatibility, float weight, int n_labels,
                                  int width) {
  std::vector<float> rows(static_cast<std::size_t>(n_labels) * width, 0.0F);
  for (int a = 0; a < n_labels; ++a) {
    for (int b = 0; b < n_labels; ++b) {
      const float mu = compatibility.values[static_cast<std::size_t>(a) * n_labels + b];
      rows[static_cast<std::size_t>(b) * width + a] = -weight * mu;
    }
  }
  return rows;
}

// The largest range over a of mu(a, b), for any b.
float widest_column(const Compatibility& mu, int n_labels) {
  if (mu.kind == Compatibility::Kind::potts) return 1.0F;
  float widest = 0.0F;
  for (int b = 0; b < n_labels; ++b) {
    float low = 0.0F, high = 0.0F;
    if (mu.kind == Compatibility::Kind::vector) {
      high = std::abs(mu.values[b]);
    } else {
      low = high = mu.values[b];
      for (int a = 1; a < n_labels; ++a) {
        const float value = mu.values[static_cast<std::size_t>(a) * n_labels + b];
        low = std::min(low, value);
        high = std::max(high, value);
      }
    }
    widest = std::max(widest, high - low);
  }
  return widest;
}

}  // namespace

FieldKernel::FieldKernel(std::shared_ptr<const Lattice> shared, Normalization mode, float weight,
                         const Compatibility& mu, bool exclude_self, int n_labels, int width,
                         int threads)
    : lattice_(std::move(shared)),
      scales_(*lattice_, mode, threads),
      width_(width),
      normalization_(mode),
      weight_(weight),
      kind_(mu.kind),
      n_labels_(n_labels) {
  const float factor_weight = weight * scales_.gain();
  const bool diagonal = kind_ != Compatibility::Kind::matrix;
  // A difference of two Q takes mass from some labels and gives it to others: two columns.
  drift_factor_ = 2.0F * factor_weight * widest_column(mu, n_labels);
  // Potts is taken as -1 times the identity, which differs by the same amount for all labels.
  factor_.assign(static_cast<std::size_t>(width), diagonal ? 0.0F : 1.0F);
  for (int a = 0; diagonal && a < n_labels; ++a) {
    factor_[a] = factor_weight * (kind_ == Compatibility::Kind::vector ? mu.values[a] : 1.0F);
  }
  if (!diagonal) matrix_ = message_matrix(mu, factor_weight, n_labels, width);
  if (exclude_self) {
    self_.resize(lattice_->n_points);
    crfseg::self_response(*lattice_, threads, self_.data());
    for (std::int64_t p = 0; p < self_.size(); ++p) {
      if (scales_.slice(p) != nullptr) self_[p] *= *scales_.slice(p);
      if (scales_.splat(p) != nullptr) self_[p] *= *scales_.splat(p);
    }
  }
}

kernels::Message FieldKernel::message(std::int64_t strip, float* incoming, bool splat) {
  const std::int64_t begin = lattice_->strips.begin(strip);
  kernels::Message m{};
  m.at = corners_of(*lattice_, strip);
  m.slice_scale = scales_.slice(begin);
  m.splat_scale = scales_.splat(begin);
  if (excludes_self()) {
    m.self = self_.data() + begin;
    m.self_factor = factor_.data();
    m.self_rows = kind_ == Compatibility::Kind::matrix ? matrix_.data() : nullptr;
  }
  // In this order: blurred rows may lie where the sums will.
  if (incoming != nullptr) m.incoming = rows_->fetch(strip, incoming);
  if (splat) m.outgoing = rows_->cleared_rows(strip);
  return m;
}

void FieldKernel::keep_sums(bool keep) {
  const auto sums = keep ? VertexRows::Sums::kept : VertexRows::Sums::replaced;
  if (rows_ && rows_->width() == width_ && sums == sums_) return;
  sums_ = sums;
  rows_.reset();
  rows_.emplace(*lattice_, width_, sums, factor_);
}

void FieldKernel::hold_difference() {
  if (rows_ && rows_->width() == 1) return;
  rows_.reset();
  rows_.emplace(*lattice_, 1, VertexRows::Sums::replaced, std::vector<float>{factor_[0]});
}

void FieldKernel::start_drift() {
  drift_.emplace(*lattice_, 1, VertexRows::Sums::kept, std::vector<float>{drift_factor_});
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
  if (kind_ == Compatibility::Kind::matrix) rows_->mix(matrix_.data(), n_labels_, threads);
}

}  // namespace crfseg
