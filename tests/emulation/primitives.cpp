// SPDX-License-Identifier: MIT
#include "cuda/primitives.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace crfseg {
namespace cuda {
namespace {

template <class Key>
void sort_stably(const Key* keys, const std::uint32_t* values, std::int64_t n, int bits,
                 Key* sorted_keys, std::uint32_t* sorted_values) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  const int all = static_cast<int>(8 * sizeof(Key));
  const Key mask = bits < all ? (Key{1} << bits) - 1 : ~Key{0};
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return (keys[a] & mask) < (keys[b] & mask);
  });
  for (std::int64_t i = 0; i < n; ++i) {
    sorted_keys[i] = keys[order[i]];
    sorted_values[i] = values[order[i]];
  }
}

}  // namespace

void sort_pairs(const NarrowKey* keys, const std::uint32_t* values, std::int64_t n, int bits,
                NarrowKey* sorted_keys, std::uint32_t* sorted_values, const Allocate&, Stream) {
  sort_stably(keys, values, n, bits, sorted_keys, sorted_values);
}

void sort_pairs(const WideKey* keys, const std::uint32_t* values, std::int64_t n, int bits,
                WideKey* sorted_keys, std::uint32_t* sorted_values, const Allocate&, Stream) {
  sort_stably(keys, values, n, bits, sorted_keys, sorted_values);
}

void sum_up(const std::uint32_t* values, std::int64_t n, std::uint32_t* sums, const Allocate&,
            Stream) {
  std::partial_sum(values, values + n, sums);
}

}  // namespace cuda
}  // namespace crfseg
