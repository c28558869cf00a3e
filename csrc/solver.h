// SPDX-License-Identifier: MIT
// How inference goes from marginals x to the next ones. With t = -U - P x,
// P = sum_k w_k mu_k K~_k:
//   mean field   z' = damping z + (1 - damping) t,  x' = softmax(z')
//                (in log space: Baqué et al., CVPR 2016)
//   Frank-Wolfe  s = argmin -<t, s> + strength r(s),  x' = x + step (s - x)
//                (Lê-Huu & Alahari, NeurIPS 2021)
// where r is the negative entropy, s = softmax(t / strength), or half the square,
// s = sparsemax(t / strength), the nearest point of the simplex (Martins & Astudillo, ICML 2016).
// The line search takes the step of least E(x) = <U, x> + 1/2 <x, P x>.
#pragma once

namespace crfseg {

struct Solver {
  enum class Steps : int { fixed, diminishing, line_search };

  float damping = 0.0F;
  bool euclidean = false;
  Steps steps = Steps::fixed;
  float step = 1.0F;
  float strength = 1.0F;

  bool is_mean_field() const {
    return damping == 0.0F && !euclidean && replaces() && strength == 1.0F;
  }
  // Whether x' is s.
  bool replaces() const { return steps == Steps::fixed && step == 1.0F; }
  float step_at(int iteration) const {
    return steps == Steps::diminishing ? 2.0F / (static_cast<float>(iteration) + 2.0F) : step;
  }
};

}  // namespace crfseg
