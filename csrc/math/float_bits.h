// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstring>

#include "math/host_device.h"

namespace crfseg {

CRFSEG_HD std::uint32_t bits_of_float(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

CRFSEG_HD float float_of_bits(std::uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace crfseg
