// SPDX-License-Identifier: MIT
// The way forth: steps of which some are kept, and found again between those that are.
#include "gradients.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "cpu/dispatch.h"
#include "cpu/gradients_kernel.h"
#include "cpu/gradients_steps.h"
#include "cpu/scratch.h"
#include "cpu/unary_supply.h"
#include "parallel.h"

namespace crfseg {

UnrolledField::UnrolledField(std::int64_t n_points, int n_labels,
                             const std::vector<CoupledKernel>& kernels, int threads)
    : strips_(Strips::of(n_points)), n_labels_(n_labels), width_(std::max(4, row_width(n_labels))) {
  for (const CoupledKernel& kernel : kernels) {
    terms_.push_back(std::make_unique<CoupledTerm>(kernel, n_labels, width_, threads));
  }
}

UnrolledField::~UnrolledField() = default;

const Lattice& UnrolledField::lattice(int kernel) const { return terms_[kernel]->lattice(); }
bool UnrolledField::is_full(int kernel) const { return terms_[kernel]->is_full(); }

std::int64_t UnrolledField::nbytes() const {
  std::int64_t sum = rows_.nbytes() + highest_.nbytes();
  for (const Buffer<float>& q : q_) sum += q.nbytes();
  for (const auto& term : terms_) sum += term->nbytes();
  return sum;
}

// Returns max |dQ| where asked for.
float UnrolledField::forth(const Step& step) {
  const int batch = batch_points(width_);
  std::int64_t size = batch * width_;
  for (const auto& term : terms_) size += step.slices ? term->most_rows() * width_ : 0;
  Scratch scratch(size);
  std::vector<float> changes(static_cast<std::size_t>(strips_.count));
  parallel_for(strips_.count, step.threads, [&](std::int64_t s) {
    Scratch::Loan loan = scratch.borrow();
    float* place = loan.data() + batch * width_;
    std::vector<kernels::UnrolledKernel> kernels;
    for (const auto& term : terms_) {
      kernels.push_back(term->forth(s, step.slices ? place : nullptr, step.splats));
      place += term->most_rows() * width_;
    }
    const std::int64_t begin = strips_.begin(s), first = begin * width_;
    kernels::UnrolledPass pass{};
    pass.n_points = strips_.end(s) - begin;
    pass.n_labels = n_labels_;
    pass.width = width_;
    pass.unary = strip_from(step.unary, begin);
    pass.is_energy = is_energy_;
    pass.rows = rows_.size() > 0 ? rows_.data() + first : nullptr;
    pass.highest = highest_.size() > 0 ? highest_.data() + begin : nullptr;
    pass.given_q = step.given_q != nullptr ? step.given_q + first : nullptr;
    pass.kernels = kernels.data();
    pass.n_kernels = static_cast<int>(kernels.size());
    pass.scratch = loan.data();
    pass.batch = batch;
    pass.q = step.q != nullptr ? step.q + first : nullptr;
    pass.want_change = step.wants_change;
    pass.out = strip_from(step.out, begin);
    pass.wants_logits = options_.wants_logits;
    active_kernels().unrolled_pass(&pass);
    changes[s] = pass.max_change;
  });
  float change = 0.0F;
  for (const float each : changes) change = std::max(change, each);
  return change;
}

// keep: the step whose blurred sums are kept; or -1.
void UnrolledField::exchange(int threads, int keep) {
  std::vector<VertexRows*> all;
  for (const auto& term : terms_) all.push_back(&*term->messages);
  VertexRows::blur(all, false, threads);
  for (const auto& term : terms_) {
    if (keep >= 0) term->keep_sums(keep);
    term->mix(threads);
  }
}

float* UnrolledField::room_for(int t) {
  Buffer<float>& q = q_[plan_.place_of(t)];
  q.resize(strips_.n_points * width_);
  return q.data();
}

void UnrolledField::forget(int t) {
  if (!plan_.is_kept(t)) q_[plan_.place_of(t)] = Buffer<float>();
  for (const auto& term : terms_) {
    if (!plan_.keeps_sums(t)) term->forget_sums(plan_.place_of(t));
  }
}

Unrolling UnrolledField::run(LabelView<const float> unary, bool is_energy,
                             const UnrollOptions& options, LabelView<float> out) {
  if (options.every < 1 || options.differentiated < 0 || options.iterations < 0) {
    throw std::invalid_argument("steps are counted from 0, and kept from every one on");
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  is_run_ = false;
  is_energy_ = is_energy;
  options_ = options;
  const int n = options.iterations;
  plan_ = UnrollPlan::of(n, options.differentiated, options.every, options.fixed_point,
                         options.wants_logits);
  q_.clear();
  q_.resize(static_cast<std::size_t>(plan_.n_places(n)));
  rows_.resize(strips_.n_points * width_);
  highest_.resize(strips_.n_points);
  for (const auto& term : terms_) {
    term->start_messages();
    term->start_sums(q_.size());
  }
  Unrolling result = go(unary, out);
  for (const auto& term : terms_) term->drop_rows();
  if (!plan_.finds_again()) rows_ = Buffer<float>();
  highest_ = Buffer<float>();
  options_.between_iterations = nullptr;  // the call's
  is_run_ = true;
  return result;
}

Unrolling UnrolledField::go(LabelView<const float> unary, LabelView<float> out) {
  Unrolling result;
  result.max_change = std::numeric_limits<float>::quiet_NaN();
  const int n = options_.iterations;
  Step step;
  step.threads = options_.threads;
  bool is_last = n == 0, is_settled = false;
  for (int t = 0;; ++t) {
    step.unary = t == 0 ? unary : LabelView<const float>{};
    step.slices = t > 0;
    step.splats = !is_last;
    step.q = plan_.is_kept(t) ? room_for(t) : nullptr;
    step.out = is_last ? out : LabelView<float>{};
    step.wants_change = options_.fixed_point && t > 0 && !is_settled;
    const float change = forth(step);
    if (step.wants_change) result.max_change = change;
    result.iterations = t;
    if (is_last) return result;
    if (options_.between_iterations) options_.between_iterations();
    exchange(options_.threads, plan_.keeps_sums(t) ? t : -1);
    // Once nothing moves, one more step writes what there is.
    is_settled = step.wants_change && change < options_.tolerance;
    is_last = t + 1 == n || is_settled;
  }
}

// Q^t, found again from the last step before it that is kept.
const float* UnrolledField::marginals(int t, int threads) {
  if (options_.fixed_point) return q_[0].data();
  if (q_[t].size() > 0) return q_[t].data();
  const int start = plan_.start_for(t);
  for (const auto& term : terms_) term->start_messages();
  Step step;
  step.threads = threads;
  if (start > 0) step.given_q = q_[start].data();
  for (int u = start;; ++u) {
    step.slices = u > start;
    step.splats = u < t;
    step.q = u == t ? room_for(t) : nullptr;
    forth(step);
    if (u == t) return q_[t].data();
    step.given_q = nullptr;
    exchange(threads, u == t - 1 && u >= plan_.first ? u : -1);
  }
}

// Blurred sums of Q^t, unless they are there.
void UnrolledField::find_sums(int t, int threads) {
  if (terms_.empty() || terms_.front()->has_sums(t)) return;
  Step step;
  step.threads = threads;
  step.given_q = marginals(t, threads);
  step.splats = true;
  for (const auto& term : terms_) term->start_messages();
  forth(step);
  exchange(threads, t);
}

}  // namespace crfseg
