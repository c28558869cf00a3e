// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <vector>

namespace crfseg {

// mu(a, b): Potts [a != b]; a vector v stands for -diag(v); or a full matrix, row a, column b.
struct Compatibility {
  enum class Kind { potts, vector, matrix } kind = Kind::potts;
  std::vector<float> values;
};

// (width) what blurred rows are multiplied by on their way to points: -w mu of every label with
// itself; 1 where a matrix has mixed the rows. Potts is taken as -1 times the identity, which
// differs by the same amount for all labels.
inline std::vector<float> message_factors(const Compatibility& compatibility, float weight,
                                          int n_labels, int width) {
  using Kind = Compatibility::Kind;
  const bool is_matrix = compatibility.kind == Kind::matrix;
  std::vector<float> factors(static_cast<std::size_t>(width), is_matrix ? 1.0F : 0.0F);
  for (std::size_t a = 0; !is_matrix && a < static_cast<std::size_t>(n_labels); ++a) {
    factors[a] = weight * (compatibility.kind == Kind::vector ? compatibility.values[a] : 1.0F);
  }
  return factors;
}

// (n_labels, width) rows of -w mu of a matrix: row b holds what label b adds to every label.
inline std::vector<float> message_matrix(const Compatibility& compatibility, float weight,
                                         int n_labels, int width) {
  std::vector<float> rows(static_cast<std::size_t>(n_labels) * width, 0.0F);
  for (int a = 0; a < n_labels; ++a) {
    for (int b = 0; b < n_labels; ++b) {
      const float mu = compatibility.values[static_cast<std::size_t>(a) * n_labels + b];
      rows[static_cast<std::size_t>(b) * width + a] = -weight * mu;
    }
  }
  return rows;
}

}  // namespace crfseg
