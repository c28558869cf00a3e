// SPDX-License-Identifier: MIT
// The way back through the steps that were kept.
#include <algorithm>
#include <limits>
#include <optional>
#include <stdexcept>

#include "cpu/dispatch.h"
#include "cpu/gradients_features.h"
#include "cpu/gradients_kernel.h"
#include "cpu/gradients_steps.h"
#include "cpu/scratch.h"
#include "cpu/unary_supply.h"
#include "gradients.h"
#include "parallel.h"

namespace crfseg {

class UnrolledField::Return {
 public:
  Return(UnrolledField* field, const BackOptions& options);
  ~Return();

  Gradients go(LabelView<const float> gradient, LabelView<float> out);

 private:
  void start(LabelView<const float> gradient);
  void unroll();
  void sum_series();
  void exchange();
  void note_pairs(const float* delta, const float* q);
  float back(const BackStep& step);
  kernels::AdjointKernel kernel(std::size_t k, std::int64_t strip, float* scratch,
                                const BackStep& step);
  void add_moments(std::int64_t strip, int t, const std::vector<kernels::AdjointKernel>& kernels);
  std::vector<double> coupling_gradient(std::size_t k) const;
  bool wants_delta() const {
    return !exact_.empty() || !pairs_.empty() || !options_.probes.empty();
  }
  // The step whose K~ Q^t what is splat is paired with, which is found for it.
  int paired(int t) {
    field_.find_sums(t, options_.threads);
    return t;
  }

  UnrolledField& field_;
  const BackOptions& options_;
  Gradients result_;
  Buffer<float> sum_, delta_;
  std::vector<std::vector<double>> moments_;          // per kernel: (strips, moments)
  std::vector<std::optional<ExactFeatures>> exact_;   // per kernel; or empty
  std::vector<std::optional<SmoothFeatures>> pairs_;  // per kernel; or empty
  float first_largest_ = 0.0F;
};

UnrolledField::Return::Return(UnrolledField* field, const BackOptions& options)
    : field_(*field), options_(options) {
  const std::int64_t n = field_.strips_.n_points, width = field_.width_;
  const auto any_of = [&](FeatureGradient form) {
    return std::any_of(options.features.begin(), options.features.end(),
                       [&](const FeatureRequest& request) { return request.form == form; });
  };
  exact_.resize(any_of(FeatureGradient::exact) ? field_.terms_.size() : 0);
  pairs_.resize(any_of(FeatureGradient::smooth) ? field_.terms_.size() : 0);
  for (std::size_t k = 0; k < field_.terms_.size(); ++k) {
    const CoupledTerm& term = *field_.terms_[k];
    const FeatureRequest& request = options.features[k];
    if (request.form == FeatureGradient::exact) exact_[k].emplace(term, request, options.threads);
    if (request.form == FeatureGradient::smooth) {
      pairs_[k].emplace(term, request, field_.width_, options.threads);
    }
    field_.terms_[k]->start_back();
    const std::int64_t size = width * (term.is_full() ? field_.n_labels_ : 1);
    moments_.emplace_back(static_cast<std::size_t>(size * field_.strips_.count), 0.0);
  }
  result_.probes.assign(options.probes.size(), 0.0);
  sum_.resize((n + 7) / 8 * 8 * width);  // what writes gradients reads whole groups of points
  std::fill(sum_.begin(), sum_.end(), 0.0F);
  if (wants_delta()) delta_.resize(n * width);
}

UnrolledField::Return::~Return() {
  for (const auto& term : field_.terms_) term->drop_rows();
  for (int t = 0; t < static_cast<int>(field_.q_.size()); ++t) field_.forget(t);
}

Gradients UnrolledField::Return::go(LabelView<const float> gradient, LabelView<float> out) {
  start(gradient);
  if (field_.options_.fixed_point) {
    sum_series();
  } else {
    unroll();
  }
  const Strips& strips = field_.strips_;
  parallel_for(strips.count, options_.threads, [&](std::int64_t s) {
    const std::int64_t begin = strips.begin(s);
    active_kernels().write_gradient(sum_.data() + begin * field_.width_, strips.end(s) - begin,
                                    field_.n_labels_, field_.width_,
                                    field_.is_energy_ ? -1.0F : 1.0F, strip_from(out, begin));
  });
  for (std::size_t k = 0; k < field_.terms_.size(); ++k) {
    result_.couplings.push_back(coupling_gradient(k));
    if (!exact_.empty() && exact_[k]) exact_[k]->finish();
    if (!pairs_.empty() && pairs_[k]) pairs_[k]->finish();
  }
  return std::move(result_);
}

// delta of the last step, from what the caller says.
void UnrolledField::Return::start(LabelView<const float> gradient) {
  const int n = field_.options_.iterations;
  BackStep step;
  step.gradient = gradient;
  step.gathers = false;
  step.through_softmax = !field_.options_.wants_logits;
  step.splats = field_.options_.fixed_point || n > field_.plan_.first;
  step.sum = sum_.data();
  step.delta = delta_.data();
  if (step.through_softmax) step.q = field_.marginals(n, options_.threads);
  if (step.splats && !field_.options_.fixed_point) step.moments = paired(n - 1);
  first_largest_ = back(step);
  field_.forget(n);
}

void UnrolledField::Return::unroll() {
  const int first = field_.plan_.first;
  for (int t = field_.options_.iterations - 1; t >= first; --t) {
    BackStep step;
    step.goes_on = t > first || t == 0;
    if (!step.goes_on && !wants_delta()) return;  // couplings have what they need
    if (options_.between_iterations) options_.between_iterations();
    step.q = field_.marginals(t, options_.threads);
    exchange();
    note_pairs(delta_.data(), step.q);
    step.filtered = exact_.empty() ? -1 : t;
    step.splats = t > first;
    if (step.splats) step.moments = paired(t - 1);
    step.delta = delta_.data();
    step.sum = sum_.data();
    back(step);
    field_.forget(t);
  }
}

// The sum of the series of deltas is what passes through the parameters, once.
void UnrolledField::Return::sum_series() {
  const float* q = field_.marginals(0, options_.threads);
  BackStep step;
  step.q = q;
  step.sum = sum_.data();
  const bool finite = first_largest_ < std::numeric_limits<float>::infinity();
  const float enough = options_.tolerance * first_largest_;
  result_.converged = first_largest_ == 0.0F;
  for (result_.terms = 1; finite && !result_.converged; ++result_.terms) {
    if (result_.terms > options_.most_terms) break;
    if (options_.between_iterations) options_.between_iterations();
    exchange();
    result_.converged = back(step) <= enough;
  }
  BackStep last;
  last.given_delta = sum_.data();
  last.gathers = last.through_softmax = false;
  last.moments = paired(0);
  back(last);
  note_pairs(sum_.data(), q);
  if (exact_.empty()) return;
  exchange();
  step.filtered = 0;
  step.goes_on = step.splats = false;
  step.sum = nullptr;
  step.delta = sum_.data();
  back(step);
}

void UnrolledField::Return::exchange() {
  std::vector<VertexRows*> all;
  for (const auto& term : field_.terms_) all.push_back(&*term->adjoint);
  VertexRows::blur(all, true, options_.threads);
  for (const auto& term : field_.terms_) term->mix_back(options_.threads);
}

// What wants <M^T delta, K~ Q> in another way than through the rows of the lattice.
void UnrolledField::Return::note_pairs(const float* delta, const float* q) {
  if (pairs_.empty() && options_.probes.empty()) return;
  for (std::size_t k = 0; k < field_.terms_.size(); ++k) {
    const CoupledTerm& term = *field_.terms_[k];
    const bool is_smooth = !pairs_.empty() && pairs_[k];
    const bool is_probed =
        std::any_of(options_.probes.begin(), options_.probes.end(),
                    [&](const Probe& probe) { return probe.kernel == static_cast<int>(k); });
    if (!is_smooth && !is_probed) continue;
    const Buffer<float> coupled = coupled_rows(term, delta, field_.width_, options_.threads);
    if (is_smooth) pairs_[k]->add(coupled.data(), q);
    for (std::size_t i = 0; i < options_.probes.size(); ++i) {
      const Probe& probe = options_.probes[i];
      if (probe.kernel != static_cast<int>(k)) continue;
      result_.probes[i] += filtered_product(*probe.lattice, term.normalization(), coupled.data(), q,
                                            field_.width_, options_.threads);
    }
  }
}

kernels::AdjointKernel UnrolledField::Return::kernel(std::size_t k, std::int64_t strip,
                                                     float* scratch, const BackStep& step) {
  CoupledTerm& term = *field_.terms_[k];
  kernels::AdjointKernel kernel = term.back(strip, scratch, step.splats);
  if (step.filtered < 0 || !exact_[k]) return kernel;
  exact_[k]->lend(field_.strips_.begin(strip), &kernel);
  kernel.filtered = term.filtered(step.filtered, strip, scratch + term.most_rows() * field_.width_);
  return kernel;
}

// Returns max |delta|.
float UnrolledField::Return::back(const BackStep& step) {
  const int width = field_.width_, batch = batch_points(width);
  const std::int64_t rows_read = step.filtered >= 0 ? 2 : 1;
  std::int64_t size = batch * width;
  for (const auto& term : field_.terms_) {
    size += step.gathers ? rows_read * term->most_rows() * width : 0;
  }
  Scratch scratch(size);
  std::vector<float> largest(static_cast<std::size_t>(field_.strips_.count));
  parallel_for(field_.strips_.count, options_.threads, [&](std::int64_t s) {
    Scratch::Loan loan = scratch.borrow();
    float* place = loan.data() + batch * width;
    std::vector<kernels::AdjointKernel> kernels;
    for (std::size_t k = 0; k < field_.terms_.size(); ++k) {
      kernels.push_back(kernel(k, s, step.gathers ? place : nullptr, step));
      place += rows_read * field_.terms_[k]->most_rows() * width;
    }
    const std::int64_t begin = field_.strips_.begin(s), first = begin * width;
    const auto from = [&](auto* rows) { return rows != nullptr ? rows + first : nullptr; };
    kernels::AdjointPass pass{};
    pass.n_points = field_.strips_.end(s) - begin;
    pass.n_labels = field_.n_labels_;
    pass.width = width;
    pass.gradient = strip_from(step.gradient, begin);
    pass.given_delta = from(step.given_delta);
    pass.q = from(step.q);
    pass.through_softmax = step.through_softmax;
    pass.goes_on = step.goes_on;
    pass.delta = from(step.delta);
    pass.sum = from(step.sum);
    pass.kernels = kernels.data();
    pass.n_kernels = static_cast<int>(kernels.size());
    pass.scratch = loan.data();
    pass.batch = batch;
    active_kernels().adjoint_pass(&pass);
    if (step.moments >= 0) add_moments(s, step.moments, kernels);
    largest[s] = pass.largest;
  });
  return largest.empty() ? 0.0F : *std::max_element(largest.begin(), largest.end());
}

void UnrolledField::Return::add_moments(std::int64_t strip, int t,
                                        const std::vector<kernels::AdjointKernel>& kernels) {
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    const std::size_t size = moments_[k].size() / static_cast<std::size_t>(field_.strips_.count);
    field_.terms_[k]->add_moments(t, strip, kernels[k].adjoint_out,
                                  moments_[k].data() + static_cast<std::size_t>(strip) * size);
  }
}

std::vector<double> UnrolledField::Return::coupling_gradient(std::size_t k) const {
  const std::vector<double>& all = moments_[k];
  const double gain = field_.terms_[k]->gain();
  const auto n_labels = static_cast<std::size_t>(field_.n_labels_);
  const auto width = static_cast<std::size_t>(field_.width_);
  const std::size_t n_rows = field_.terms_[k]->is_full() ? n_labels : 1;
  std::vector<double> sums(n_rows * n_labels, 0.0);
  for (std::size_t start = 0; start < all.size(); start += n_rows * width) {
    for (std::size_t a = 0; a < n_rows; ++a) {
      for (std::size_t b = 0; b < n_labels; ++b) {
        sums[a * n_labels + b] += gain * all[start + a * width + b];
      }
    }
  }
  return sums;
}

Gradients UnrolledField::back(LabelView<const float> gradient, const BackOptions& options,
                              LabelView<float> out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!is_run_) throw std::invalid_argument("there is nothing to go back through");
  if (options.features.size() != terms_.size()) {
    throw std::invalid_argument("expected what is wanted of features for each kernel");
  }
  return Return(this, options).go(gradient, out);
}

}  // namespace crfseg
