// SPDX-License-Identifier: MIT
// Floats of 16 bits, as torch's half and bfloat16 lie in memory. They are stored, never computed
// with. Conversions are made of integers, so that the host and every device agree: to float they
// are exact, from float they round to nearest, ties to even, and a NaN becomes a quiet one.
#pragma once

#include <cstdint>

#include "math/float_bits.h"

namespace crfseg {
namespace cuda {

struct Float16 {  // IEEE binary16
  std::uint16_t bits;
};

struct BFloat16 {  // the upper half of a float
  std::uint16_t bits;
};

CRFSEG_HD float to_float(float value) { return value; }

CRFSEG_HD float to_float(BFloat16 value) { return float_of_bits(std::uint32_t{value.bits} << 16); }

CRFSEG_HD float to_float(Float16 value) {
  const std::uint32_t sign = (value.bits & 0x8000U) << 16, magnitude = value.bits & 0x7FFFU;
  if (magnitude >= 0x7C00U) return float_of_bits(sign | 0x7F800000U | magnitude << 13);
  if (magnitude >= 0x0400U) return float_of_bits(sign | ((magnitude << 13) + 0x38000000U));
  const float subnormal = static_cast<float>(magnitude) * 5.9604644775390625e-8F;  // 2^-24
  return sign != 0 ? -subnormal : subnormal;
}

// bits / 2^shift, to the nearest, ties to even; shift > 0
CRFSEG_HD std::uint32_t shifted_to_nearest(std::uint32_t bits, int shift) {
  const std::uint32_t below_half = (1U << (shift - 1)) - 1U, odd = bits >> shift & 1U;
  return (bits + below_half + odd) >> shift;
}

CRFSEG_HD Float16 to_float16(float value) {
  const std::uint32_t bits = bits_of_float(value), magnitude = bits & 0x7FFFFFFFU;
  std::uint32_t half = 0;
  if (magnitude > 0x7F800000U) {
    half = 0x7E00U;
  } else if (magnitude >= 0x47800000U) {  // 2^16; what lies between rounds to infinity by itself
    half = 0x7C00U;
  } else if (magnitude >= 0x38800000U) {  // 2^-14, the least that is not subnormal
    half = shifted_to_nearest(magnitude - 0x38000000U, 13);
  } else if (magnitude >= 0x33000000U) {  // 2^-25, half of the least of all
    const int shift = 126 - static_cast<int>(magnitude >> 23);
    half = shifted_to_nearest((magnitude & 0x007FFFFFU) | 0x00800000U, shift);
  }
  return {static_cast<std::uint16_t>((bits >> 16 & 0x8000U) | half)};
}

CRFSEG_HD BFloat16 to_bfloat16(float value) {
  const std::uint32_t bits = bits_of_float(value), magnitude = bits & 0x7FFFFFFFU;
  const std::uint32_t upper = magnitude > 0x7F800000U ? 0x7FC0U : shifted_to_nearest(magnitude, 16);
  return {static_cast<std::uint16_t>((bits >> 16 & 0x8000U) | upper)};
}

}  // namespace cuda
}  // namespace crfseg
