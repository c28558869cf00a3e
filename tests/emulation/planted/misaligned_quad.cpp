// SPDX-License-Identifier: MIT
// Rows of six floats are read four at a time.
#include "cuda/tile.cuh"
#include "planted.h"

namespace {

using namespace crfseg::cuda;

CRFSEG_KERNEL sum_quads(int width, const float* rows, float* sums) {
  const Quad quad = load_quad(rows + thread_index() * width);
  sums[thread_index()] = quad.x + quad.y + quad.z + quad.w;
}

void run() {
  const Memory rows = stream_allocator(nullptr)(4 * 6 * sizeof(float));
  std::vector<float> sums(4);
  CRFSEG_LAUNCH(sum_quads, 1, 4, 0, nullptr, 6, static_cast<const float*>(rows.get()), sums.data());
}

}  // namespace

int main() { planted::report(run); }
