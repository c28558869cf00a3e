// SPDX-License-Identifier: MIT
// One kernel of a mean field that is differentiated on a device: its coupling, and the rows of its
// lattice that hold messages, what comes back of them, and filtered Q.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "cuda/filter.h"
#include "cuda/gradients.h"
#include "cuda/moments.h"
#include "cuda/passes.cuh"
#include "cuda/values.h"

namespace crfseg {
namespace cuda {

class CoupledTerm {
 public:
  CoupledTerm(const CoupledKernel& kernel, int n_labels, int width, const Allocate& allocate,
              Stream stream);
  // This kernel, coupling and all, over another lattice.
  CoupledKernel over(std::shared_ptr<const Lattice> lattice, double gain) const;

  const Lattice& lattice() const { return *kernel_.lattice; }
  Normalization normalization() const { return kernel_.normalization; }
  const Scales& scales() const { return scales_; }
  const float* factor() const { return factor_.data(); }  // (width) of rows that are read
  std::int64_t nbytes() const;

  // Way forth. Of n steps, the blurred sums of some are kept.
  void start(std::size_t n_steps);
  void start_messages();
  void splat(const float* q) { messages_->splat(q, scales_.splat, stream_); }
  // Blurs what was splat and keeps that for step `keep`, unless it is -1; mixes labels.
  void exchange(int keep, const std::uint32_t* skip);
  TermView forth() const;
  bool has_sums(int t) const { return static_cast<bool>(sums_[t]); }
  void forget_sums(int t) { sums_[t] = {}; }

  // Way back, from delta. `pair` adds up deltas that were splat, and pairs them with the sums of
  // step t, unless it is -1, for the coupling's gradient; then they are blurred.
  void start_back();
  void splat_back(const float* delta) { adjoint_->splat(delta, scales_.slice, stream_); }
  void pair(int t, const std::uint32_t* skip);
  void exchange_back(const std::uint32_t* skip);
  TermView back() const;
  void write_coupling(double* out) { moments_->write(static_cast<double>(scales_.gain), out); }
  void drop_rows();

  // Rows of M K~ Q^t, to be read with the factor; they are there until the next message.
  const float* filtered(int t);
  const float* came_back() const { return adjoint_rows_; }
  // Rows of M K values, or of M^T K^T values, of (slots, width) values times `scale` of slots.
  const float* spread(const float* values, const float* scale, bool transpose);

 private:
  const float* mixed(Values* values, const float* rows, bool transpose, const std::uint32_t* skip);
  TermView view() const;

  CoupledKernel kernel_;
  int n_labels_, width_;
  Allocate allocate_;
  Stream stream_;
  Scales scales_;
  Array<float> coupling_;        // the caller's
  Array<float> factor_;          // (width)
  Array<float> columns_, rows_;  // (n_labels, width) of M where it is full, times the gain
  std::optional<Values> messages_, adjoint_;
  std::optional<Moments> moments_;
  const float* message_rows_ = nullptr;
  const float* adjoint_rows_ = nullptr;
  std::vector<Array<float>> sums_;  // (vertices, width) each, or empty
};

}  // namespace cuda
}  // namespace crfseg
