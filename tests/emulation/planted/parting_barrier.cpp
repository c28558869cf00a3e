// SPDX-License-Identifier: MIT
// Threads beyond the border of an image leave before the others meet.
#include "planted.h"

namespace {

using namespace crfseg::cuda;

CRFSEG_KERNEL leave_early(int n_points, float* sums) {
  CRFSEG_SHARED(shared);
  float* tile = reinterpret_cast<float*>(shared);
  if (thread_index() >= n_points) return;
  tile[thread_index()] = 1.0F;
  block_barrier();
  sums[thread_index()] = tile[n_points - 1 - thread_index()];
}

void run() {
  std::vector<float> sums(4);
  CRFSEG_LAUNCH(leave_early, 1, 4, 4 * sizeof(float), nullptr, 3, sums.data());
}

}  // namespace

int main() { planted::report(run); }
