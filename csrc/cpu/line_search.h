// SPDX-License-Identifier: MIT
// Frank-Wolfe with the step of least energy. P being linear, P x' follows from P x and P s: only s
// is ever filtered, once per iteration, and what that costs is memory for t = -U - P x, s, and
// t at s.
#pragma once

#include <memory>
#include <vector>

#include "buffer.h"
#include "cpu/field_kernel.h"
#include "cpu/scratch.h"
#include "mean_field.h"

namespace crfseg {

class LineSearch {
 public:
  using Kernels = std::vector<std::unique_ptr<FieldKernel>>;

  struct Moved {
    float change = 0.0F;
    double energy = 0.0;  // the free energy of x, up to constants
  };

  // x: (n_points, width), as log_unary.
  LineSearch(const Kernels& kernels, const Strips& strips, int n_labels, int width,
             const float* log_unary, const Solver& solver, int threads, Buffer<float>* x);

  // Takes P x from the lattices' blurred rows.
  void begin();
  // Takes P s from there and returns the step of least energy.
  float measure();
  // x goes that far towards s; splats the next s, unless it is the last. In the beginning there is
  // no s: by 0.
  Moved move(float step, bool is_last, bool want_energy);

 private:
  template <class F>
  void over_strips(bool slice, bool splat, F&& take);

  const Kernels& kernels_;
  const Strips& strips_;
  int n_labels_, width_;
  const float* log_unary_;
  kernels::Update update_;
  int threads_;
  Buffer<float>& x_;
  Buffer<float> t_, s_, t_at_s_;
  Scratch scratch_;
};

}  // namespace crfseg
