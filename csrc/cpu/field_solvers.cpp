// SPDX-License-Identifier: MIT
// What a mean field does for the solvers that move Q by steps.
#include "cpu/kernels/kernels.h"
#include "cpu/line_search.h"
#include "mean_field.h"
#include "parallel.h"

namespace crfseg {

// Where Q moves by steps, what it has of forbidden labels would linger: the others get it.
void MeanField::drop_forbidden(int threads) {
  parallel_for(strips_.count, threads, [&](std::int64_t s) {
    for (std::int64_t p = strips_.begin(s); p < strips_.end(s); ++p) {
      const float* log_unary = log_unary_.data() + p * width_;
      float* row = q_.data() + p * width_;
      float sum = 0.0F, allowed = 0.0F;
      for (int label = 0; label < n_labels_; ++label) {
        if (log_unary[label] <= kernels::log_zero) row[label] = 0.0F;
        sum += row[label];
        allowed += log_unary[label] <= kernels::log_zero ? 0.0F : 1.0F;
      }
      if (allowed == static_cast<float>(n_labels_)) continue;
      for (int label = 0; label < n_labels_; ++label) {
        if (log_unary[label] <= kernels::log_zero) continue;
        row[label] = sum > 0.0F ? row[label] / sum : 1.0F / allowed;
      }
    }
  });
}

// As `iterate` for q_ that has been splatted, with the steps of least energy.
void MeanField::search_lines(const InferenceOptions& options, Inference* result) {
  result->iterations = 0;
  if (options.iterations == 0 && !options.trace) return;
  LineSearch search(kernels_, strips_, n_labels_, width_, log_unary_.data(), options.solver,
                    options.threads, &q_);
  exchange(options.threads);
  search.begin();
  const double constant = unary_offset_ + (options.trace ? potts_constant(options.threads) : 0.0);
  for (float step = 0.0F;; ++result->iterations) {
    const bool last = result->iterations == options.iterations;
    const LineSearch::Moved moved = search.move(step, last, options.trace);
    if (options.trace) result->trace.push_back(moved.energy + constant);
    result->max_change = moved.change;
    const bool moves = result->iterations > 0;
    if (last || (moves && options.tolerance > 0.0F && moved.change < options.tolerance)) return;
    if (options.between_iterations) options.between_iterations();
    exchange(options.threads);
    step = search.measure();
  }
}

}  // namespace crfseg
