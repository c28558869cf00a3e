// SPDX-License-Identifier: MIT
// Which steps of a mean field that is differentiated leave what.
#pragma once

#include <algorithm>

namespace crfseg {

struct UnrollPlan {
  bool fixed_point = false;
  int every = 1;
  int first = 0, last = -1;  // of the steps whose Q may be asked for

  static UnrollPlan of(int iterations, int differentiated, int every, bool fixed_point,
                       bool wants_logits) {
    UnrollPlan plan;
    plan.fixed_point = fixed_point;
    plan.every = every;
    plan.first = fixed_point ? 0 : iterations - std::min(iterations, differentiated);
    plan.last = wants_logits ? iterations - 1 : iterations;
    return plan;
  }

  // A fixed point keeps the last Q alone.
  int place_of(int t) const { return fixed_point ? 0 : t; }
  int n_places(int iterations) const { return fixed_point ? 1 : iterations + 1; }
  // Of steps that are found again, Q^0 need not be there: it is the softmax of rows that are.
  bool is_kept(int t) const {
    if (fixed_point) return true;
    return t >= first && t <= last && (t - first) % every == 0 && (every == 1 || t > 0);
  }
  // The step to begin with that finds Q^t again: Q^0, or one that is kept.
  int start_for(int t) const {
    int from = t - 1;
    while (from > 0 && !is_kept(from)) --from;
    return std::max(from, 0);
  }
  bool keeps_sums(int t) const { return !fixed_point && every == 1 && t >= first; }
  bool finds_again() const { return every > 1 && !fixed_point; }
};

}  // namespace crfseg
