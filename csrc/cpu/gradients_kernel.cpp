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

std::int64_t CoupledTerm::nbytes() const {
  std::int64_t sum = messages ? messages->nbytes() : 0;
  for (const Buffer<float>& sums : sums_) sum += sums.nbytes();
  return sum;
}

// What rows are multiplied by where points read them; full couplings are mixed in before.
std::vector<float> CoupledTerm::factor() const {
  std::vector<float> factor(static_cast<std::size_t>(width_), scales_.gain());
  for (int x = 0; !is_full_ && x < width_; ++x) factor[x] *= coupling_[x];
  return factor;
}

void CoupledTerm::start_messages() {
  if (!messages) messages.emplace(*lattice_, width_, factor());
}

void CoupledTerm::start_back() { adjoint.emplace(*lattice_, width_, factor()); }

void CoupledTerm::drop_rows() {
  messages.reset();
  adjoint.reset();
}

void CoupledTerm::start_sums(std::size_t n_steps) {
  sums_.clear();
  sums_.resize(n_steps);
}

void CoupledTerm::keep_sums(int t) {
  sums_[t].resize(lattice_->n_local() * width_);
  std::copy_n(messages->blurred(0), sums_[t].size(), sums_[t].data());
}

void CoupledTerm::mix(int threads) {
  if (is_full_) messages->mix(transposed_.data(), n_labels_, threads);
}

void CoupledTerm::mix_back(int threads) {
  if (is_full_) adjoint->mix(coupling_.data(), n_labels_, threads);
}

const float* CoupledTerm::filtered(int t, std::int64_t strip, float* scratch) const {
  const kernels::Table& kernels = active_kernels();
  const std::int64_t n = lattice_->local_rows(strip);
  std::vector<float> factor = this->factor();
  for (float& value : factor) value *= adjoint->gain();
  const float* rows = sums_of(t, strip);
  if (is_full_) {
    kernels.mix(rows, transposed_.data(), n_labels_, n, width_, scratch);
    rows = scratch;
  }
  kernels.scale(rows, {width_, 0, width_}, factor.data(), nullptr, n, scratch);
  return scratch;
}

void CoupledTerm::add_moments(int t, std::int64_t strip, const float* delta, double* sums) const {
  active_kernels().add_products(delta, sums_of(t, strip), lattice_->local_rows(strip), n_labels_,
                                width_, is_full_, sums);
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
  // In this order: blurred rows lie where the sums will.
  if (scratch != nullptr) kernel.adjoint = adjoint->fetch(strip, scratch);
  if (splats) kernel.adjoint_out = adjoint->cleared_rows(strip);
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
