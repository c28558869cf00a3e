// SPDX-License-Identifier: MIT
#include "cpu/line_search.h"

#include <algorithm>
#include <utility>

#include "cpu/dispatch.h"
#include "cpu/unary_supply.h"
#include "cpu/update.h"
#include "parallel.h"

namespace crfseg {
namespace {

// Where in [0, 1] a slope + a^2 / 2 curvature is least; 0 where nothing is gained.
float best_step(double slope, double curvature) {
  if (curvature > 0.0) return static_cast<float>(std::clamp(-slope / curvature, 0.0, 1.0));
  return slope + 0.5 * curvature < 0.0 ? 1.0F : 0.0F;
}

}  // namespace

LineSearch::LineSearch(const Kernels& kernels, const Strips& strips, int n_labels, int width,
                       const float* log_unary, const Solver& solver, int threads, Buffer<float>* x)
    : kernels_(kernels),
      strips_(strips),
      n_labels_(n_labels),
      width_(width),
      log_unary_(log_unary),
      update_(update_of(solver, 0)),
      threads_(threads),
      x_(*x),
      t_(strips.n_points * width),
      s_(t_.size()),
      t_at_s_(t_.size()),
      scratch_((batch_points(width) + most_rows(kernels, strips)) * width) {}

// Calls take(strip, pass) with a pass over each strip.
template <class F>
void LineSearch::over_strips(bool slice, bool splat, F&& take) {
  parallel_for(strips_.count, threads_, [&](std::int64_t s) {
    Scratch::Loan loan = scratch_.borrow();
    const std::int64_t begin = strips_.begin(s), at = begin * width_;
    kernels::LineSearchPass pass{};
    pass.batch = batch_points(width_);
    pass.scratch = loan.data();
    float* incoming = loan.data() + std::int64_t{pass.batch} * width_;
    std::vector<kernels::Message> messages;
    for (const auto& kernel : kernels_) {
      messages.push_back(kernel->message(s, slice ? incoming : nullptr, splat));
      incoming += kernel->lattice().local_rows(s) * width_;
    }
    pass.n_points = strips_.end(s) - begin;
    pass.n_labels = n_labels_;
    pass.width = width_;
    pass.messages = messages.data();
    pass.n_messages = static_cast<int>(messages.size());
    pass.log_unary = log_unary_ + at;
    pass.update = update_;
    pass.x = x_.data() + at;
    pass.t = t_.data() + at;
    pass.s = s_.data() + at;
    pass.t_at_s = t_at_s_.data() + at;
    take(s, &pass);
  });
}

void LineSearch::begin() {
  over_strips(true, false, [](std::int64_t, kernels::LineSearchPass* pass) {
    active_kernels().line_search_begin(pass);
  });
}

float LineSearch::measure() {
  std::vector<double> slopes(static_cast<std::size_t>(strips_.count)), curvatures(slopes.size());
  over_strips(true, false, [&](std::int64_t s, kernels::LineSearchPass* pass) {
    active_kernels().line_search_measure(pass);
    slopes[s] = pass->slope;
    curvatures[s] = pass->curvature;
  });
  double slope = 0.0, curvature = 0.0;
  for (const double part : slopes) slope += part;
  for (const double part : curvatures) curvature += part;
  return best_step(slope, curvature);
}

LineSearch::Moved LineSearch::move(float step, bool is_last, bool want_energy) {
  std::vector<Moved> parts(static_cast<std::size_t>(strips_.count));
  update_.step = step;
  if (step == 1.0F) {
    std::swap(x_, s_);
    std::swap(t_, t_at_s_);
  }
  over_strips(false, !is_last, [&](std::int64_t s, kernels::LineSearchPass* pass) {
    pass->want_next = !is_last;
    pass->want_energy = want_energy;
    active_kernels().line_search_move(pass);
    parts[s] = {pass->max_change, pass->energy};
  });
  Moved moved;
  for (const Moved& part : parts) {
    moved.change = std::max(moved.change, part.change);
    moved.energy += part.energy;
  }
  return moved;
}

}  // namespace crfseg
