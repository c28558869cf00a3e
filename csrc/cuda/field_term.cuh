// SPDX-License-Identifier: MIT
// One pairwise term of inference: its lattice, its rows and what messages are made with.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "cuda/constants.cuh"
#include "cuda/field.cuh"
#include "cuda/grid.h"
#include "cuda/self_response.h"
#include "cuda/storage.h"
#include "cuda/sums.cuh"
#include "cuda/values.h"

namespace crfseg {
namespace cuda {

inline Array<float> to_device(const std::vector<float>& values, const Allocate& allocate,
                              Stream stream) {
  Array<float> array(static_cast<std::int64_t>(values.size()), allocate);
  write_constants(values, array.data(), stream);
  return array;
}

using StoredValues = std::variant<ValuesOf<float>, ValuesOf<Float16>>;

inline StoredValues values_stored(FloatType type, const Lattice& lattice, int width,
                                  const Allocate& allocate) {
  if (type == FloatType::float16) return ValuesOf<Float16>(lattice, width, allocate);
  return ValuesOf<float>(lattice, width, allocate);
}

// Leaves nothing above 1 in a matrix, so that rows it has mixed are no larger than before: a power
// of two goes over to the factors of what is read.
inline void move_size(std::vector<float>* matrix, std::vector<float>* factors) {
  float largest = 0.0F;
  for (const float entry : *matrix) largest = std::max(largest, std::abs(entry));
  int exponent = 0;
  std::frexp(largest, &exponent);
  for (float& entry : *matrix) entry = std::ldexp(entry, -exponent);
  for (float& factor : *factors) factor = std::ldexp(factor, exponent);
}

class MeanField::Term {
 public:
  Term(std::shared_ptr<const Lattice> shared, Normalization mode, double gain, float weight,
       const Compatibility& mu, bool exclude_self, int n_labels, int width, FloatType storage,
       const Allocate& allocate, Stream stream)
      : lattice_(std::move(shared)),
        scales_(*lattice_, mode, gain, allocate, stream),
        mode_(mode),
        gain_(gain),
        weight_(weight),
        kind_(mu.kind),
        n_labels_(n_labels),
        values_(values_stored(storage, *lattice_, width, allocate)) {
    if (storage == FloatType::float16) {
      unit_ = row_unit(lattice_->view(), lattice_->passes(), mode, scales_.gain);
    }
    const float of_sums = weight * scales_.gain;
    std::vector<float> factors = message_factors(mu, of_sums, n_labels, width);
    if (kind_ == Compatibility::Kind::matrix) {
      std::vector<float> matrix = message_matrix(mu, of_sums, n_labels, width);
      move_size(&matrix, &factors);
      matrix_ = to_device(matrix, allocate, stream);
    }
    factor_ = to_device(factors, allocate, stream);
    if (exclude_self) self_ = self_response(*lattice_, scales_, allocate, stream);
  }

  void exchange(const std::uint32_t* skip, Stream stream) {
    std::visit(
        [&](auto& values) {
          const auto* rows = values.blur(false, skip, stream);
          if (matrix_) rows = values.mix(rows, matrix_.data(), n_labels_, skip, stream);
          rows_ = rows;
        },
        values_);
  }

  TermView view() const {
    TermView view;
    view.lattice = lattice_->view();
    view.rows = rows_;
    view.partial =
        std::visit([](const auto& values) -> void* { return values.partial(); }, values_);
    view.unit = unit_;
    view.slice_scale = scales_.slice;
    view.splat_scale = scales_.splat;
    view.factor = factor_.data();
    view.self = self_ ? self_.data() : nullptr;
    view.self_rows = matrix_ ? matrix_.data() : nullptr;
    return view;
  }

  bool excludes_self() const { return static_cast<bool>(self_); }
  std::int64_t nbytes() const {
    const std::int64_t rows =
        std::visit([](const auto& values) { return values.nbytes(); }, values_);
    return rows + scales_.of_slots.nbytes() + self_.nbytes() + matrix_.nbytes();
  }

  // Half of the sum of w K~ over all pairs of points, where what the passes take for Potts differs
  // from it by that.
  double half_total(const Allocate& allocate, Stream stream) const {
    if (kind_ != Compatibility::Kind::potts) return 0.0;
    const Tiling& tiling = lattice_->view().tiling;
    const std::int64_t n = tiling.n_items * tiling.n_points;
    const Array<float> mass(n, allocate);
    lattice_filter(*lattice_, mode_, gain_, false, nullptr, 1, mass.data(), allocate, stream);
    double total = sum(mass.data(), n, allocate, stream);
    if (self_) {
      total -= static_cast<double>(scales_.gain) *
               static_cast<double>(lattice_->view().n_copies()) *
               sum(self_.data(), self_.size(), allocate, stream);
    }
    return 0.5 * static_cast<double>(weight_) * total;
  }

 private:
  static double sum(const float* values, std::int64_t n, const Allocate& allocate, Stream stream) {
    const Array<double> total(1, allocate);
    CRFSEG_LAUNCH(add_up<float>, 1, block_threads, double_per_thread, stream, n, values,
                  total.data(), nullptr);
    return total.read(0, stream);
  }

  std::shared_ptr<const Lattice> lattice_;
  Scales scales_;
  Normalization mode_;
  double gain_;
  float weight_;
  Compatibility::Kind kind_;
  int n_labels_;
  StoredValues values_;
  RowUnit unit_;
  const void* rows_ = nullptr;
  Array<float> factor_, matrix_, self_;
};

}  // namespace cuda
}  // namespace crfseg
