// SPDX-License-Identifier: MIT
// Sorting and summing on the device: CUB's (primitives.cu), the standard library's under emulation.
#pragma once

#include <cstdint>

#include "cuda/runtime.h"

namespace crfseg {
namespace cuda {

using NarrowKey = std::uint64_t;
using WideKey = unsigned __int128;

// Keys and what belongs to them, stably in order of the keys, which differ in so many of their low
// bits. n < 2^32.
void sort_pairs(const NarrowKey* keys, const std::uint32_t* values, std::int64_t n, int bits,
                NarrowKey* sorted_keys, std::uint32_t* sorted_values, const Allocate& allocate,
                Stream stream);
void sort_pairs(const WideKey* keys, const std::uint32_t* values, std::int64_t n, int bits,
                WideKey* sorted_keys, std::uint32_t* sorted_values, const Allocate& allocate,
                Stream stream);

// sums[i] = values[0] + .. + values[i]; both may be the same.
void sum_up(const std::uint32_t* values, std::int64_t n, std::uint32_t* sums,
            const Allocate& allocate, Stream stream);

}  // namespace cuda
}  // namespace crfseg
