// SPDX-License-Identifier: MIT
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "cuda/check.h"
#include "cuda/primitives.h"

namespace crfseg {
namespace cuda {
namespace {

template <class Key>
void radix_sort(const Key* keys, const std::uint32_t* values, std::int64_t n, int bits,
                Key* sorted_keys, std::uint32_t* sorted_values, const Allocate& allocate,
                Stream stream) {
  std::size_t bytes = 0;
  const auto sort = [&](void* room) {
    check(cub::DeviceRadixSort::SortPairs(room, bytes, keys, sorted_keys, values, sorted_values, n,
                                          0, bits, static_cast<cudaStream_t>(stream)),
          "cub::DeviceRadixSort::SortPairs");
  };
  sort(nullptr);
  sort(allocate(bytes).get());
}

}  // namespace

void sort_pairs(const NarrowKey* keys, const std::uint32_t* values, std::int64_t n, int bits,
                NarrowKey* sorted_keys, std::uint32_t* sorted_values, const Allocate& allocate,
                Stream stream) {
  radix_sort(keys, values, n, bits, sorted_keys, sorted_values, allocate, stream);
}

void sort_pairs(const WideKey* keys, const std::uint32_t* values, std::int64_t n, int bits,
                WideKey* sorted_keys, std::uint32_t* sorted_values, const Allocate& allocate,
                Stream stream) {
  radix_sort(keys, values, n, bits, sorted_keys, sorted_values, allocate, stream);
}

void sum_up(const std::uint32_t* values, std::int64_t n, std::uint32_t* sums,
            const Allocate& allocate, Stream stream) {
  std::size_t bytes = 0;
  const auto scan = [&](void* room) {
    check(cub::DeviceScan::InclusiveSum(room, bytes, values, sums, n,
                                        static_cast<cudaStream_t>(stream)),
          "cub::DeviceScan::InclusiveSum");
  };
  scan(nullptr);
  scan(allocate(bytes).get());
}

}  // namespace cuda
}  // namespace crfseg
