// SPDX-License-Identifier: MIT
// Blocks add what their tiles have of a vertex to its value, in the order in which they come.
#include "planted.h"

namespace {

using namespace crfseg::cuda;

CRFSEG_KERNEL add_tiles(const float* of_tile, float* value) {
  if (thread_index() == 0) *value += of_tile[block_index()];
}

std::vector<float> run() {
  const std::vector<float> of_tile = {1e8F, 1.0F, -1e8F, 3.0F, 5.0F, 7.0F};
  std::vector<float> value(1);
  CRFSEG_LAUNCH(add_tiles, 6, 32, 0, nullptr, of_tile.data(), value.data());
  return value;
}

}  // namespace

int main() { planted::compare_orders(run); }
