// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

namespace crfseg {

// mu(a, b): Potts [a != b]; a vector v stands for -diag(v); or a full matrix, row a, column b.
struct Compatibility {
  enum class Kind { potts, vector, matrix } kind = Kind::potts;
  std::vector<float> values;
};

}  // namespace crfseg
