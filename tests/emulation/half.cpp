// SPDX-License-Identifier: MIT
// Conversions of 16-bit floats against their definition: every pattern, every tie between two, and
// floats of all sizes.
#include "cuda/half.h"

#include <algorithm>
#include <cmath>

#include "../cpp/check.h"

namespace {

using crfseg::bits_of_float;
using crfseg::float_of_bits;
using crfseg::cuda::BFloat16;
using crfseg::cuda::Float16;
using crfseg::cuda::to_bfloat16;
using crfseg::cuda::to_float;
using crfseg::cuda::to_float16;

struct Format {
  int exponent_bits, fraction_bits;
  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
};
constexpr Format ieee{5, 10}, brain{8, 7};

double defined(std::uint32_t bits, Format format) {
  const double sign = (bits & 0x8000U) != 0 ? -1.0 : 1.0;
  const int fraction = static_cast<int>(bits & ((1U << format.fraction_bits) - 1U));
  const int top = (1 << format.exponent_bits) - 1;
  const int exponent = static_cast<int>(bits >> format.fraction_bits) & top;
  if (exponent == top) return fraction != 0 ? NAN : sign * INFINITY;
  const int whole = exponent != 0 ? fraction + (1 << format.fraction_bits) : fraction;
  return sign * std::ldexp(whole, std::max(exponent, 1) - format.bias() - format.fraction_bits);
}

// The nearest, ties to even: nearbyint rounds so.
double rounded(double value, Format format) {
  if (!std::isfinite(value) || value == 0.0) return value;
  const int exponent = std::max(std::ilogb(value), 1 - format.bias());
  const double unit = std::ldexp(1.0, exponent - format.fraction_bits);
  const double nearest = std::nearbyint(value / unit) * unit;
  const double bound = std::ldexp(1.0, format.bias() + 1);
  return std::fabs(nearest) < bound ? nearest : std::copysign(INFINITY, value);
}

bool same(double a, double b) {
  return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

void check_float(float value) {
  CHECK(same(to_float(to_float16(value)), rounded(static_cast<double>(value), ieee)));
  CHECK(same(to_float(to_bfloat16(value)), rounded(static_cast<double>(value), brain)));
}

template <class Half>
void check_patterns(Format format, Half (*from_float)(float)) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const Half half{static_cast<std::uint16_t>(bits)};
    const float value = to_float(half);
    CHECK(same(static_cast<double>(value), defined(bits, format)));
    const std::uint16_t back = from_float(value).bits;
    CHECK(std::isnan(value) ? std::isnan(to_float(Half{back})) : back == half.bits);
    const float next = to_float(Half{static_cast<std::uint16_t>(bits + 1)});
    if (!std::isfinite(value) || !std::isfinite(next)) continue;
    const float between = value + (next - value) / 2.0F;
    for (const float near :
         {std::nextafter(between, -INFINITY), between, std::nextafter(between, INFINITY)}) {
      check_float(near);
    }
  }
}

}  // namespace

int main() {
  check_patterns<Float16>(ieee, &to_float16);
  check_patterns<BFloat16>(brain, &to_bfloat16);
  check::Random random(1);
  for (int i = 0; i < 1000000; ++i) {
    check_float(float_of_bits(static_cast<std::uint32_t>(random.bits() >> 32)));
  }
  for (const float value : {65504.0F, 65519.996F, 65520.0F, 65536.0F, 3.4028235e38F, INFINITY, NAN,
                            2.9802322e-8F, 2.9802326e-8F, 1e-45F}) {
    check_float(value);
    check_float(-value);
  }
  CHECK(to_float16(float_of_bits(0x7F800001U)).bits == 0x7E00U);
  CHECK(to_bfloat16(float_of_bits(0xFF800001U)).bits == 0xFFC0U);
  return check::result();
}
