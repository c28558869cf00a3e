// SPDX-License-Identifier: MIT
#include <utility>

#include "cuda/coupled_term.h"
#include "cuda/grid.h"

namespace crfseg {
namespace cuda {
namespace {

// The caller's M as kernels want it. Full ones: columns(b, a) and rows(a, b) are gain M(a, b), and
// the factor is 1; else that is the gain times the diagonal.
CRFSEG_KERNEL lay_out_coupling(int n_labels, int width, bool is_full, float gain,
                               const float* values, float* factor, float* columns, float* rows) {
  for (std::int64_t i = grid_first(); i < width; i += grid_stride()) {
    factor[i] = is_full ? 1.0F : i < n_labels ? gain * values[i] : 0.0F;
  }
  const std::int64_t n = is_full ? std::int64_t{n_labels} * width : 0;
  for (std::int64_t i = grid_first(); i < n; i += grid_stride()) {
    const std::int64_t row = i / width, x = i % width;
    columns[i] = x < n_labels ? gain * values[x * n_labels + row] : 0.0F;
    rows[i] = x < n_labels ? gain * values[row * n_labels + x] : 0.0F;
  }
}

}  // namespace

CoupledTerm::CoupledTerm(const CoupledKernel& kernel, int n_labels, int width,
                         const Allocate& allocate, Stream stream)
    : kernel_(kernel),
      n_labels_(n_labels),
      width_(width),
      allocate_(allocate),
      stream_(stream),
      scales_(*kernel.lattice, kernel.normalization, kernel.gain, allocate, stream),
      coupling_(kernel.is_full ? std::int64_t{n_labels} * n_labels : n_labels, allocate),
      factor_(width, allocate) {
  copy_on_device(coupling_.data(), kernel.coupling, static_cast<std::size_t>(coupling_.nbytes()),
                 stream);
  kernel_.coupling = coupling_.data();
  const std::int64_t size = kernel.is_full ? std::int64_t{n_labels} * width : 0;
  if (kernel.is_full) {
    columns_ = Array<float>(size, allocate);
    rows_ = Array<float>(size, allocate);
  }
  CRFSEG_LAUNCH(lay_out_coupling, elementwise(size + width), block_threads, 0, stream, n_labels,
                width, kernel.is_full, scales_.gain, coupling_.data(), factor_.data(),
                columns_.data(), rows_.data());
}

CoupledKernel CoupledTerm::over(std::shared_ptr<const Lattice> lattice, double gain) const {
  CoupledKernel other = kernel_;
  other.lattice = std::move(lattice);
  other.gain = gain;
  return other;
}

std::int64_t CoupledTerm::nbytes() const {
  std::int64_t sum = scales_.of_slots.nbytes() + coupling_.nbytes() + factor_.nbytes() +
                     columns_.nbytes() + rows_.nbytes();
  for (const Array<float>& sums : sums_) sum += sums.nbytes();
  return sum;
}

void CoupledTerm::start(std::size_t n_steps) {
  sums_.clear();
  sums_.resize(n_steps);
  start_messages();
}

void CoupledTerm::start_messages() {
  if (messages_) return;
  messages_.emplace(*kernel_.lattice, width_, allocate_);
  messages_->clear(stream_);
}

void CoupledTerm::start_back() {
  const LatticeView& view = kernel_.lattice->view();
  adjoint_.emplace(*kernel_.lattice, width_, allocate_);
  adjoint_->clear(stream_);  // sums over all vertices take those that are not there
  moments_.emplace(view.all_vertices(), n_labels_, width_, kernel_.is_full, allocate_, stream_);
}

void CoupledTerm::drop_rows() {
  messages_.reset();
  adjoint_.reset();
  moments_.reset();
}

const float* CoupledTerm::mixed(Values* values, const float* rows, bool transpose,
                                const std::uint32_t* skip) {
  if (!kernel_.is_full) return rows;
  return values->mix(rows, transpose ? rows_.data() : columns_.data(), n_labels_, skip, stream_);
}

void CoupledTerm::exchange(int keep, const std::uint32_t* skip) {
  const float* rows = messages_->blur(false, skip, stream_);
  if (keep >= 0) {
    sums_[keep] = messages_->take(allocate_);
    rows = sums_[keep].data();
  }
  message_rows_ = mixed(&*messages_, rows, false, skip);
}

void CoupledTerm::pair(int t, const std::uint32_t* skip) {
  const float* deltas = adjoint_->add_up(skip, stream_);
  if (t >= 0) moments_->add(deltas, sums_[t].data());
}

void CoupledTerm::exchange_back(const std::uint32_t* skip) {
  adjoint_rows_ = mixed(&*adjoint_, adjoint_->blur_sums(true, skip, stream_), true, skip);
}

const float* CoupledTerm::filtered(int t) {
  start_messages();
  return mixed(&*messages_, sums_[t].data(), false, nullptr);
}

const float* CoupledTerm::spread(const float* values, const float* scale, bool transpose) {
  start_messages();
  messages_->splat(values, scale, stream_);
  return mixed(&*messages_, messages_->blur(transpose, nullptr, stream_), transpose, nullptr);
}

TermView CoupledTerm::view() const {
  TermView view;
  view.lattice = kernel_.lattice->view();
  view.factor = factor_.data();
  return view;
}

TermView CoupledTerm::forth() const {
  TermView view = this->view();
  view.rows = message_rows_;
  view.partial = messages_->partial();
  view.slice_scale = scales_.slice;
  view.splat_scale = scales_.splat;
  return view;
}

// Delta goes the way back of Q: in where messages are read, and out where Q is splat.
TermView CoupledTerm::back() const {
  TermView view = this->view();
  view.rows = adjoint_rows_;
  view.partial = adjoint_->partial();
  view.slice_scale = scales_.splat;
  view.splat_scale = scales_.slice;
  return view;
}

}  // namespace cuda
}  // namespace crfseg
