// SPDX-License-Identifier: MIT
// Arrays of the caller, of any type and strides, are packed for the kernels, and results for them.
#pragma once

#include <cstdint>

#include "cuda/runtime.h"

namespace crfseg {
namespace cuda {

// bool is uint8.
enum class ElementType : int {
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  uint64,
  int64,
  float16,
  bfloat16,
  float32,
  float64
};
constexpr int n_element_types = 12;

constexpr int most_axes = 6;

// Strides are counted in elements, and may be negative; axes that are missing are the first, of
// length 1.
struct Strided {
  const void* data = nullptr;
  ElementType type = ElementType::float32;
  std::int64_t shape[most_axes] = {1, 1, 1, 1, 1, 1};
  std::int64_t strides[most_axes] = {};

  std::int64_t size() const;
};

// What becomes of values: v = value * scale + offset, taken for a bound where it is beyond one by
// no more than the slack, less what is the lowest. By the index along the last axis.
struct ChannelMap {
  static constexpr int most = 16;
  int n = 0;  // 0: values stay what they are; 1: the same for all
  float scale[most] = {}, offset[most] = {}, low[most] = {}, high[most] = {}, slack[most] = {};
};

// Packs an array into another of the same or another type, the last axis fastest.
void convert(const Strided& from, const ChannelMap& map, void* to, ElementType type, Stream stream);

}  // namespace cuda
}  // namespace crfseg
