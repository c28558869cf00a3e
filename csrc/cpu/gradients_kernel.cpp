// SPDX-License-Identifier: MIT
#include "cpu/gradients_kernel.h"

#include <algorithm>

#include "cpu/corners.h"
#include "cpu/dispatch.h"

namespace crfseg {

CoupledTerm::CoupledTerm(const CoupledKernel& kernel, int n_labels, int width, int threads)
    : lattice_(kernel.lattice),
      normalization_(kernel.normalization),
      scales_(*lattice_, normalization_, threads),
      is_full_(kernel.coupling.is_full),
      n_labels_(n_labels),
      width_(width) {
  for (std::int64_t s = 0; s < lattice_->strips.count; ++s) {
    most_rows_ = std::max(most_rows_, lattice_->local_rows(s));
  }
  const std::vector<float>& values = kernel.coupling.values;
  const int n_rows = is_full_ ? n_labels : 1;
  coupling_.assign(static_cast<std::size_t>(n_rows) * width, 0.0F);
  transposed_.assign(is_full_ ? coupling_.size() : 0, 0.0F);
  for (int a = 0; a < n_rows; ++a) {
    for (int b = 0; b < n_labels; ++b) {
      const float value = values[static_cast<std::size_t>(a) * n_labels + b];
      coupling_[static_cast<std::size_t>(a) * width + b] = value;
      if (is_full_) transposed_[static_cast<std::size_t>(b) * width + a] = value;
    }
  }
}

std::vector<float> CoupledTerm::factor(bool coupled) const {
  std::vector<float> factor(static_cast<std::size_t>(width_), scales_.gain());
  for (int x = 0; coupled && !is_full_ && x < width_; ++x) factor[x] *= coupling_[x];
  return factor;
}

void CoupledTerm::start_messages() {
  if (!messages) messages.emplace(*lattice_, width_, factor(true));
}

void CoupledTerm::start_back(bool wants_filtered) {
  const auto rows = [&](std::optional<VertexRows>* to) {
    to->emplace(*lattice_, width_, factor(false));
  };
  rows(&adjoint);
  if (wants_filtered) rows(&filtered);
}

void CoupledTerm::drop_rows() {
  messages.reset();
  adjoint.reset();
  filtered.reset();
}

void CoupledTerm::mix(int threads) {
  if (is_full_) messages->mix(transposed_.data(), n_labels_, threads);
}

kernels::UnrolledKernel CoupledTerm::forth(std::int64_t strip, float* scratch, bool splats) {
  const std::int64_t begin = lattice_->strips.begin(strip);
  kernels::UnrolledKernel kernel{};
  kernel.at = corners_of(*lattice_, strip);
  kernel.slice_scale = scales_.slice(begin);
  kernel.splat_scale = scales_.splat(begin);
  // In this order: blurred rows lie where the sums will.
  if (scratch != nullptr) kernel.incoming = messages->fetch(strip, scratch);
  if (splats) kernel.outgoing = messages->cleared_rows(strip);
  return kernel;
}

kernels::AdjointKernel CoupledTerm::back(std::int64_t strip, float* scratch, bool splats) {
  const std::int64_t begin = lattice_->strips.begin(strip);
  kernels::AdjointKernel kernel{};
  kernel.at = corners_of(*lattice_, strip);
  kernel.slice_scale = scales_.slice(begin);
  kernel.splat_scale = scales_.splat(begin);
  kernel.coupling = coupling_.data();
  kernel.transposed = is_full_ ? transposed_.data() : nullptr;
  if (scratch != nullptr) kernel.adjoint = adjoint->fetch(strip, scratch);
  if (scratch != nullptr && filtered) {
    kernel.filtered = filtered->fetch(strip, scratch + most_rows_ * width_);
  }
  if (splats) kernel.adjoint_out = adjoint->cleared_rows(strip);
  if (splats && filtered) kernel.filtered_out = filtered->cleared_rows(strip);
  return kernel;
}

void CoupledTerm::couple_transposed(const float* rows, std::int64_t n, float* out) const {
  if (is_full_) {
    return active_kernels().mix(rows, coupling_.data(), n_labels_, n, width_, out);
  }
  for (std::int64_t p = 0; p < n; ++p) {
    for (int x = 0; x < width_; ++x) out[p * width_ + x] = rows[p * width_ + x] * coupling_[x];
  }
}

}  // namespace crfseg
