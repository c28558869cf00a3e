// SPDX-License-Identifier: MIT
#include "cuda/convert.h"
#include "cuda/device.h"
#include "cuda/grid.h"
#include "cuda/half.h"

namespace crfseg {
namespace cuda {
namespace {

template <class T>
CRFSEG_DEVICE double at(const void* data, std::int64_t i) {
  return static_cast<double>(static_cast<const T*>(data)[i]);
}

// Exact, but for integers beyond 2^53.
CRFSEG_DEVICE double load(const void* data, ElementType type, std::int64_t i) {
  switch (type) {
    case ElementType::uint8:
      return at<std::uint8_t>(data, i);
    case ElementType::int8:
      return at<std::int8_t>(data, i);
    case ElementType::uint16:
      return at<std::uint16_t>(data, i);
    case ElementType::int16:
      return at<std::int16_t>(data, i);
    case ElementType::uint32:
      return at<std::uint32_t>(data, i);
    case ElementType::int32:
      return at<std::int32_t>(data, i);
    case ElementType::uint64:
      return at<std::uint64_t>(data, i);
    case ElementType::int64:
      return at<std::int64_t>(data, i);
    case ElementType::float16:
      return static_cast<double>(to_float(static_cast<const Float16*>(data)[i]));
    case ElementType::bfloat16:
      return static_cast<double>(to_float(static_cast<const BFloat16*>(data)[i]));
    case ElementType::float64:
      return at<double>(data, i);
    default:
      return at<float>(data, i);
  }
}

template <class T>
CRFSEG_DEVICE void put(void* data, std::int64_t i, double value) {
  static_cast<T*>(data)[i] = static_cast<T>(value);
}

CRFSEG_DEVICE void store(void* data, ElementType type, std::int64_t i, double value) {
  switch (type) {
    case ElementType::uint8:
      return put<std::uint8_t>(data, i, value);
    case ElementType::int8:
      return put<std::int8_t>(data, i, value);
    case ElementType::uint16:
      return put<std::uint16_t>(data, i, value);
    case ElementType::int16:
      return put<std::int16_t>(data, i, value);
    case ElementType::uint32:
      return put<std::uint32_t>(data, i, value);
    case ElementType::int32:
      return put<std::int32_t>(data, i, value);
    case ElementType::uint64:
      return put<std::uint64_t>(data, i, value);
    case ElementType::int64:
      return put<std::int64_t>(data, i, value);
    case ElementType::float16:
      static_cast<Float16*>(data)[i] = to_float16(static_cast<float>(value));
      return;
    case ElementType::bfloat16:
      static_cast<BFloat16*>(data)[i] = to_bfloat16(static_cast<float>(value));
      return;
    case ElementType::float64:
      return put<double>(data, i, value);
    default:
      return put<float>(data, i, value);
  }
}

CRFSEG_DEVICE float mapped(const ChannelMap& map, int channel, float value) {
  const float v = value * map.scale[channel] + map.offset[channel];
  const float low = map.low[channel], high = map.high[channel], slack = map.slack[channel];
  if (v < low && v >= low - slack) return 0.0F;
  if (v > high && v <= high + slack) return high - low;
  return v - low;
}

CRFSEG_KERNEL convert_elements(CRFSEG_CONSTANT Strided from, CRFSEG_CONSTANT ChannelMap map,
                               std::int64_t n, void* to, ElementType type) {
  for (std::int64_t i = grid_first(); i < n; i += grid_stride()) {
    std::int64_t rest = i, place = 0;
    for (int axis = most_axes - 1; axis >= 0; --axis) {
      place += rest % from.shape[axis] * from.strides[axis];
      rest /= from.shape[axis];
    }
    double value = load(from.data, from.type, place);
    if (map.n > 0) {
      const int channel = map.n > 1 ? static_cast<int>(i % from.shape[most_axes - 1]) : 0;
      value = static_cast<double>(mapped(map, channel, static_cast<float>(value)));
    }
    store(to, type, i, value);
  }
}

}  // namespace

std::int64_t Strided::size() const {
  std::int64_t n = 1;
  for (const std::int64_t length : shape) n *= length;
  return n;
}

void convert(const Strided& from, const ChannelMap& map, void* to, ElementType type,
             Stream stream) {
  const std::int64_t n = from.size();
  if (n == 0) return;
  CRFSEG_LAUNCH(convert_elements, elementwise(n), block_threads, 0, stream, from, map, n, to, type);
}

}  // namespace cuda
}  // namespace crfseg
