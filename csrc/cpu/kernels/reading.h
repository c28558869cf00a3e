// SPDX-License-Identifier: MIT
// What unary.cpp offers to the passes over points.
#pragma once

#include "cpu/kernels/kernels.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// Rows of -U, up to a constant per point, of n points from `first` on. Rows up to the next multiple
// of eight must be writable and hold numbers.
void read_unary(const UnarySource& from, std::int64_t first, int n, int n_labels, int width,
                float* rows, UnaryStats* stats);
// Rows of softmax(-U) and, unless null, of -U.
void read_start(const UnarySource& from, std::int64_t first, int n, int n_labels, int width,
                float* rows, float* log_rows, UnaryStats* stats);

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg
