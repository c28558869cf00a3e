// SPDX-License-Identifier: MIT
// Gradients of features from g(a, b) = d/df sum_i a_i (K b)_i, in both of their forms. With the
// normalisation n = K 1 that features change as well, those of a K~ b are
//   after     g(a/n, b)         - g(a (K~ b)/n, 1)
//   before    g(a, b/n)         - g((K~^T a) b/n, 1)
//   symmetric g(a/rn, b/rn)     - g((a (K~ b) + (K~^T a) b)/2n, 1)     rn the root of n
// where products are summed over labels, so that one channel is enough for what is subtracted, and
// over steps, so that it is done once. That sum is called the mass here.
#pragma once

#include <cstdint>

#include "buffer.h"
#include "cpu/kernels/gradients.h"
#include "gradients.h"

namespace crfseg {

class CoupledTerm;

// Through the weights of the corners: q_k = a <filtered b at corner k> + b <filtered a at corner k>
// is what a change of weight k brings, and moving a point changes the weights along the coordinates
// of the lattice, by their rank. Passes over points add to `corner` and `mass`.
class ExactFeatures {
 public:
  ExactFeatures(const CoupledTerm& term, const FeatureRequest& request, int threads);

  void lend(std::int64_t first_point, kernels::AdjointKernel* kernel);
  void finish();

 private:
  void take_normalizer_out();

  const CoupledTerm& term_;
  FeatureRequest request_;
  int threads_;
  Buffer<float> corner_;  // (n_points, corners)
  Buffer<float> mass_;    // (n_points)
};

// Of the Gaussian: sum_c a_c (K(b_c f) - f K b_c) + b_c (K^T(a_c f) - f K^T a_c), filtered channel
// by channel.
class SmoothFeatures {
 public:
  SmoothFeatures(const CoupledTerm& term, const FeatureRequest& request, int width, int threads);

  // rows a = M^T delta and b = Q, (n_points, width)
  void add(const float* a, const float* b);
  void finish();

 private:
  void add_scaled(const float* a, const float* b, int width, float sign);

  const CoupledTerm& term_;
  FeatureRequest request_;
  int width_, threads_;
  Buffer<float> mass_;  // (n_points)
};

// M^T times rows of delta.
Buffer<float> coupled_rows(const CoupledTerm& term, const float* delta, int width, int threads);

// <a, K~ b> for rows a and b.
double filtered_product(const Lattice& lattice, Normalization normalization, const float* a,
                        const float* b, int width, int threads);

}  // namespace crfseg
