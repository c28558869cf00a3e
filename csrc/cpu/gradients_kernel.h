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
  std::int64_t nbytes() const { return messages ? messages->nbytes() : 0; }

  void start_messages();
  void start_back(bool wants_filtered);
  void drop_rows();

  // Mixes blurred rows of Q into those of M Q, where M is not diagonal.
  void mix(int threads);

  // scratch: (most_rows, width) for each of the rows that are read.
  kernels::UnrolledKernel forth(std::int64_t strip, float* scratch, bool splats);
  kernels::AdjointKernel back(std::int64_t strip, float* scratch, bool splats);

  // rows(p) = M^T rows(p), for n rows.
  void couple_transposed(const float* rows, std::int64_t n, float* out) const;

  std::optional<VertexRows> messages, adjoint, filtered;

 private:
  std::vector<float> factor(bool coupled) const;

  std::shared_ptr<const Lattice> lattice_;
  Normalization normalization_;
  Scales scales_;
  bool is_full_;
  int n_labels_, width_;
  std::int64_t most_rows_ = 0;
  std::vector<float> coupling_;    // (width) the diagonal, or (n_labels, width) rows of M
  std::vector<float> transposed_;  // (n_labels, width) columns of M, where it is full
};

}  // namespace crfseg
