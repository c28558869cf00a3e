// SPDX-License-Identifier: MIT
// sum over rows of a(x) b(y), for pairs of labels x and y or for each label: the gradients of
// couplings.
#pragma once

#include <cstdint>

#include "cuda/arrays.h"

namespace crfseg {
namespace cuda {

class Moments {
 public:
  Moments(std::int64_t n_rows, int n_labels, int width, bool all_pairs, const Allocate& allocate,
          Stream stream);

  // Adds those of (n_rows, width) rows.
  void add(const float* a, const float* b);
  // factor times what was added: (n_labels), or (n_labels, n_labels).
  void write(double factor, double* out);

 private:
  std::int64_t n_rows_, n_parts_;
  int n_labels_, width_;
  bool all_pairs_;
  Stream stream_;
  Array<double> parts_;  // sums over parts of the rows, which are added up in their order
};

}  // namespace cuda
}  // namespace crfseg
