// SPDX-License-Identifier: MIT
// Choices that mean the same on every device.
#pragma once

namespace crfseg {

// K~ for n = K 1: none K, before K n^-1, after n^-1 K (K&K 2011), symmetric n^-1/2 K n^-1/2 (2013).
enum class Normalization : int { none = 0, before = 1, after = 2, symmetric = 3 };

constexpr bool scales_slice(Normalization n) {
  return n == Normalization::after || n == Normalization::symmetric;
}
constexpr bool scales_splat(Normalization n) {
  return n == Normalization::before || n == Normalization::symmetric;
}

// Of an image.
enum class ChannelType : int { uint8, uint16, float32 };

// foreground: the probability of label 1 of two, and nothing of label 0.
enum class UnaryKind : int { energies, probabilities, logits, foreground };

// How features get a gradient. With g(a, b) = d/df sum_i a_i (K b)_i:
// exact: that of the lattice, through the barycentric weights of the simplex that a point is in.
// smooth: that of the Gaussian, sum_j k_ij (a_i b_j + b_i a_j) (f_j - f_i), filtered by the
// lattice.
enum class FeatureGradient : int { none = 0, exact = 1, smooth = 2 };

}  // namespace crfseg
