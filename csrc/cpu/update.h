// SPDX-License-Identifier: MIT
// A solver as the kernels take it.
#pragma once

#include <algorithm>

#include "cpu/kernels/kernels.h"
#include "solver.h"

namespace crfseg {

inline kernels::Update update_of(const Solver& solver, int iteration) {
  // Beyond, the regulariser is nothing, or all there is; and energies stay far from log_zero.
  const float sharpness = 1.0F / std::clamp(solver.strength, 1e-20F, 1e20F);
  return {solver.euclidean, sharpness, solver.step_at(iteration)};
}

}  // namespace crfseg
