// SPDX-License-Identifier: MIT
// Mean field of two labels in one channel. With Potts terms the messages to two labels differ by
// w K~ s, s = Q(0) - Q(1), and that is all their softmax sees:
//   z' = U(1) - U(0) + sum_k w_k K~_k s,   s = tanh(z / 2)
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "buffer.h"
#include "cpu/field_kernel.h"
#include "cpu/scratch.h"
#include "mean_field.h"

namespace crfseg {

class TwoLabels {
 public:
  using Kernels = std::vector<std::unique_ptr<FieldKernel>>;

  static bool apply(const Kernels& kernels, int n_labels);

  TwoLabels(const UnarySupply& unary, const Kernels& kernels, const Strips& strips, int threads);

  // Splats from softmax(-U); what was found while reading.
  UnaryReport start();
  // One iteration; out and labels may be null. The last one splats nothing.
  void step(bool last, LabelView<float> out, std::int32_t* labels);

 private:
  kernels::TwoLabelsPass pass(std::int64_t strip, bool splat, float* incoming,
                              std::vector<kernels::Message>* messages);

  const UnarySupply& unary_;
  std::vector<FieldKernel*> kernels_;  // those of few corners first
  const Strips& strips_;
  int threads_;
  Buffer<float> log_odds_;  // (n_points) U(1) - U(0)
  Scratch scratch_;
};

}  // namespace crfseg
