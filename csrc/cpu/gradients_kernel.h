// SPDX-License-Identifier: MIT
// One kernel of a mean field that is differentiated: its coupling, and the rows of its lattice that
// hold messages, what comes back of them, and filtered Q.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "cpu/kernels/gradients.h"
#include "cpu/scales.h"
#include "cpu/vertex_rows.h"
#include "gradients.h"

namespace crfseg {

class CoupledTerm {
 public:
  CoupledTerm(const CoupledKernel& kernel, int n_labels, int width, int threads);

  const Lattice& lattice() const { return *lattice_; }
  Normalization normalization() const { return normalization_; }
  const Scales& scales() const { return scales_; }
  bool is_full() const { return is_full_; }
  std::int64_t most_rows() const { return most_rows_; }  // of a strip
  std::int64_t nbytes() const;

  void start_messages();
  void start_back();
  void drop_rows();

  // Blurred sums of Q^t, unmixed, for the way back: of n steps, those that are kept.
  void start_sums(std::size_t n_steps);
  void keep_sums(int t);
  void forget_sums(int t) { sums_[t] = Buffer<float>(); }
  bool has_sums(int t) const { return sums_[t].size() > 0; }

  // Mixes blurred rows of Q into those of M Q, where M is not diagonal.
  void mix(int threads);

  // The same of blurred rows of delta into those of M^T delta.
  void mix_back(int threads);

  // scratch: (most_rows, width) for the rows that are read.
  kernels::UnrolledKernel forth(std::int64_t strip, float* scratch, bool splats);
  kernels::AdjointKernel back(std::int64_t strip, float* scratch, bool splats);

  // Rows of M K~ Q^t of a strip.
  const float* filtered(int t, std::int64_t strip, float* scratch) const;
  // sums += products of the strip's rows of delta, splat and not yet blurred, with those of K~ Q^t;
  // to be multiplied by gain(). sums: (width), or (n_labels, width) where M is full.
  void add_moments(int t, std::int64_t strip, const float* delta, double* sums) const;
  float gain() const { return scales_.gain() * adjoint->gain(); }

  // rows(p) = M^T rows(p), for n rows.
  void couple_transposed(const float* rows, std::int64_t n, float* out) const;

  std::optional<VertexRows> messages, adjoint;

 private:
  std::vector<float> factor() const;
  const float* sums_of(int t, std::int64_t strip) const {
    return sums_[t].data() + lattice_->local_begin[strip] * width_;
  }

  std::shared_ptr<const Lattice> lattice_;
  Normalization normalization_;
  Scales scales_;
  bool is_full_;
  int n_labels_, width_;
  std::int64_t most_rows_ = 0;
  std::vector<float> coupling_;      // (width) the diagonal, or (n_labels, width) rows of M
  std::vector<float> transposed_;    // (n_labels, width) columns of M, where it is full
  std::vector<Buffer<float>> sums_;  // (n_local, width) each; or empty
};

}  // namespace crfseg
