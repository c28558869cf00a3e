// SPDX-License-Identifier: MIT
// Arrays of every type and any strides are packed as a plain loop packs them.
#include "cuda/convert.h"

#include <cmath>
#include <limits>
#include <vector>

#include "../cpp/check.h"
#include "cuda/constants.cuh"
#include "cuda/half.h"
#include "emulation.h"

namespace {

namespace cuda = crfseg::cuda;
using cuda::ChannelMap;
using cuda::ElementType;
using cuda::Strided;

// (4, 3, 5), of which every second row is seen, and the last axis from its end on.
constexpr std::int64_t lengths[3] = {4, 2, 5}, steps[3] = {15, 10, -1};
constexpr std::int64_t first = 4, n_values = 60, n_seen = 40;

std::int64_t place_of(std::int64_t i) {
  return first + i / 10 * steps[0] + i / 5 % 2 * steps[1] + i % 5 * steps[2];
}

template <class T>
Strided seen(const std::vector<T>& values, ElementType type) {
  Strided array;
  array.data = values.data() + first;
  array.type = type;
  for (int i = 0; i < 3; ++i) {
    array.shape[cuda::most_axes - 3 + i] = lengths[i];
    array.strides[cuda::most_axes - 3 + i] = steps[i];
  }
  return array;
}

template <class From, class To>
void check_pair(ElementType from, ElementType to) {
  std::vector<From> values;
  for (std::int64_t i = 0; i < n_values; ++i) values.push_back(static_cast<From>(2 * i + 1));
  std::vector<To> packed(n_seen);
  cuda::convert(seen(values, from), {}, packed.data(), to, nullptr);
  for (std::int64_t i = 0; i < n_seen; ++i) {
    CHECK(packed[static_cast<std::size_t>(i)] == static_cast<To>(2 * place_of(i) + 1));
  }
}

template <class From>
void check_to_all(ElementType from) {
  check_pair<From, std::uint8_t>(from, ElementType::uint8);
  check_pair<From, std::int8_t>(from, ElementType::int8);
  check_pair<From, std::uint16_t>(from, ElementType::uint16);
  check_pair<From, std::int16_t>(from, ElementType::int16);
  check_pair<From, std::uint32_t>(from, ElementType::uint32);
  check_pair<From, std::int32_t>(from, ElementType::int32);
  check_pair<From, std::uint64_t>(from, ElementType::uint64);
  check_pair<From, std::int64_t>(from, ElementType::int64);
  check_pair<From, float>(from, ElementType::float32);
  check_pair<From, double>(from, ElementType::float64);
}

void check_types() {
  check_to_all<std::uint8_t>(ElementType::uint8);
  check_to_all<std::int8_t>(ElementType::int8);
  check_to_all<std::uint16_t>(ElementType::uint16);
  check_to_all<std::int16_t>(ElementType::int16);
  check_to_all<std::uint32_t>(ElementType::uint32);
  check_to_all<std::int32_t>(ElementType::int32);
  check_to_all<std::uint64_t>(ElementType::uint64);
  check_to_all<std::int64_t>(ElementType::int64);
  check_to_all<float>(ElementType::float32);
  check_to_all<double>(ElementType::float64);
}

// Through 16 bits and back again.
template <class Half>
void check_halves(ElementType type) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < n_values; ++i) values.push_back(0.5 * static_cast<double>(i) - 7.0);
  std::vector<Half> halves(n_seen);
  cuda::convert(seen(values, ElementType::float64), {}, halves.data(), type, nullptr);
  Strided back;
  back.data = halves.data();
  back.type = type;
  back.shape[cuda::most_axes - 1] = n_seen;
  back.strides[cuda::most_axes - 1] = 1;
  std::vector<float> found(n_seen);
  cuda::convert(back, {}, found.data(), ElementType::float32, nullptr);
  for (std::int64_t i = 0; i < n_seen; ++i) {
    CHECK(found[static_cast<std::size_t>(i)] ==
          static_cast<float>(values[static_cast<std::size_t>(place_of(i))]));
  }
}

// Values beyond a bound by the slack are the bound, those further out stay out, NaN stays NaN.
void check_channels() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> values = {0.0F, 1.0F, -0.04F, 1.04F, -0.2F, 1.2F, nan, 0.5F};
  const std::vector<float> expected[2] = {{0.0F, 1.0F, 0.0F, 1.0F, -0.2F, 1.2F, nan, 0.5F},
                                          {0.0F, 2.0F, 0.0F, 2.0F, -0.4F, 2.4F, nan, 1.0F}};
  std::vector<float> pairs;
  for (const float v : values) pairs.insert(pairs.end(), {v, v});
  Strided array;
  array.data = pairs.data();
  array.shape[cuda::most_axes - 2] = 8;
  array.strides[cuda::most_axes - 2] = 2;
  array.shape[cuda::most_axes - 1] = 2;
  array.strides[cuda::most_axes - 1] = 1;
  ChannelMap map;
  map.n = 2;
  for (int k = 0; k < 2; ++k) {  // 2 v + 3 lies between 3 and 5
    map.scale[k] = static_cast<float>(k + 1);
    map.offset[k] = map.low[k] = static_cast<float>(3 * k);
    map.high[k] = map.low[k] + map.scale[k];
    map.slack[k] = 0.05F * map.scale[k];
  }
  std::vector<float> found(16);
  cuda::convert(array, map, found.data(), ElementType::float32, nullptr);
  for (std::size_t i = 0; i < 16; ++i) {
    const float wanted = expected[i % 2][i / 2];
    CHECK(std::isnan(wanted) ? std::isnan(found[i]) : std::fabs(found[i] - wanted) < 1e-6F);
    if (std::fabs(wanted) == 0.0F) CHECK(found[i] == 0.0F);
  }
}

// By launches, and by one copy where they are many.
void check_constants() {
  for (const std::size_t n : {1, 512, 513, 4096, 5000}) {
    std::vector<float> values(n), found(n, -1.0F);
    for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<float>(i);
    cuda::write_constants(values, found.data(), nullptr);
    CHECK(found == values);
  }
}

}  // namespace

int main() {
  for (const std::uint64_t seed : {0, 5}) {
    emulation::settings().seed = seed;
    check_types();
    check_halves<cuda::Float16>(ElementType::float16);
    check_halves<cuda::BFloat16>(ElementType::bfloat16);
    check_channels();
    check_constants();
  }
  return check::result();
}
