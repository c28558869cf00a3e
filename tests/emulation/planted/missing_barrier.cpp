// SPDX-License-Identifier: MIT
// A tile's values are splat before all of its threads have written theirs.
#include "planted.h"

namespace {

using namespace crfseg::cuda;

CRFSEG_KERNEL splat_early(int n, const float* values, float* sums) {
  CRFSEG_SHARED(shared);
  float* tile = reinterpret_cast<float*>(shared);
  for (int i = thread_index(); i < n; i += block_size()) tile[i] = 0.5F * values[i];
  for (int i = thread_index(); i < n; i += block_size()) sums[i] = tile[i] + tile[n - 1 - i];
}

std::vector<float> run() {
  const std::vector<float> values(64, 1.0F);
  std::vector<float> sums(64);
  CRFSEG_LAUNCH(splat_early, 1, 64, 64 * sizeof(float), nullptr, 64, values.data(), sums.data());
  return sums;
}

}  // namespace

int main() { planted::compare_orders(run); }
