// SPDX-License-Identifier: MIT
// What a device finds out while nobody waits for it: words, so that they are compared as they are.
// Bits of floats that are not negative are in their order, and those of NaN come last.
#pragma once

#include <cstdint>

namespace crfseg {
namespace cuda {

// How the way to a fixed point stands. Once nothing moves, one more step writes what there is.
struct UnrollState {
  std::uint32_t is_done, is_settled, iterations, change, last_change;
  std::uint32_t is_bad;  // whether anything in the unary was not finite
};

// How the series back from it stands; behind it lie the largest |delta| of every item's first term,
// and of its last.
struct SeriesState {
  std::uint32_t is_done, terms, is_converged, n_left, n_endless;
};

template <class State>
constexpr std::int64_t words_of() {
  return sizeof(State) / sizeof(std::uint32_t);
}

}  // namespace cuda
}  // namespace crfseg
