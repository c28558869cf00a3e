// SPDX-License-Identifier: MIT
#include "cpu/features.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "error.h"
#include "parallel.h"

namespace crfseg {
namespace {

constexpr int lanes = 8;

// Lowest and highest of every column, by place modulo the rows' length. Values that are not finite
// come out as bounds that are not.
template <class T>
void scan(const T* values, std::int64_t n_rows, int n_columns, float* lo, float* hi) {
  const int period = lanes * n_columns;
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> low(static_cast<std::size_t>(period), infinity);
  std::vector<float> high(static_cast<std::size_t>(period), -infinity);
  std::vector<float> nothing(static_cast<std::size_t>(period), 0.0F);  // or NaN
  const auto add = [&](const T* at, int n) {
    for (int i = 0; i < n; ++i) {
      const auto value = static_cast<float>(at[i]);
      low[i] = value < low[i] ? value : low[i];
      high[i] = value > high[i] ? value : high[i];
      nothing[i] += value * 0.0F;
    }
  };
  const std::int64_t n_blocks = n_rows / lanes;
  for (std::int64_t block = 0; block < n_blocks; ++block) add(values + block * period, period);
  add(values + n_blocks * period, static_cast<int>(n_rows % lanes) * n_columns);
  for (int i = 0; i < period; ++i) {
    const int column = i % n_columns;
    lo[column] = std::min(lo[column], low[i]) + nothing[i];
    hi[column] = std::max(hi[column], high[i]) + nothing[i];
  }
}

bool all_finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

}  // namespace

Features::Features(const float* rows, int dim) : columns_(rows), n_columns_(dim), dim_(dim) {}

Features::Features(const PixelGrid& pixels)
    : columns_(pixels.channels),
      type_(pixels.type),
      n_columns_(pixels.n_channels),
      dim_(pixels.n_positions() + pixels.n_channels),
      width_(pixels.width),
      height_(pixels.height),
      inverse_sigmas_(pixels.inverse_sigmas, pixels.inverse_sigmas + dim_) {}

// Calls f with the columns of the points from this one on, as what they are.
template <class F>
void Features::with_columns(std::int64_t point, F&& f) const {
  const std::int64_t first = point * n_columns_;
  switch (type_) {
    case ChannelType::uint8:
      return f(static_cast<const std::uint8_t*>(columns_) + first);
    case ChannelType::uint16:
      return f(static_cast<const std::uint16_t*>(columns_) + first);
    case ChannelType::float32:
      return f(static_cast<const float*>(columns_) + first);
  }
}

void Features::load(std::int64_t first, int count, float (*block)[kernels::simplex_batch]) const {
  if (width_ == 0) {
    const float* from = static_cast<const float*>(columns_) + first * dim_;
    for (int axis = 0; axis < dim_; ++axis) {
      for (int i = 0; i < count; ++i) block[axis][i] = from[i * dim_ + axis];
    }
    return;
  }
  load_positions(first, count, block);
  const int n_positions = dim_ - n_columns_;
  with_columns(first, [&](const auto* from) {
    for (int c = 0; c < n_columns_; ++c) {
      const float inverse = inverse_sigmas_[n_positions + c];
      for (int i = 0; i < count; ++i) {
        block[n_positions + c][i] = static_cast<float>(from[i * n_columns_ + c]) * inverse;
      }
    }
  });
}

void Features::load_positions(std::int64_t first, int count,
                              float (*block)[kernels::simplex_batch]) const {
  const bool has_z = dim_ - n_columns_ > 2;
  const std::int64_t row = first / width_;
  std::int64_t x = first % width_, y = row % height_, z = row / height_;
  for (int i = 0; i < count; ++i) {
    block[0][i] = static_cast<float>(x) * inverse_sigmas_[0];
    block[1][i] = static_cast<float>(y) * inverse_sigmas_[1];
    if (has_z) block[2][i] = static_cast<float>(z) * inverse_sigmas_[2];
    if (++x < width_) continue;
    x = 0;
    if (++y < height_) continue;
    y = 0;
    ++z;
  }
}

// Of the points from first to last; where they leave a row or a slice, all of it counts.
void Features::bound_positions(std::int64_t first, std::int64_t last, FeatureRange* range) const {
  const int n_positions = dim_ - n_columns_;
  const std::int64_t all = std::numeric_limits<std::int64_t>::max();
  const std::int64_t lengths[] = {width_, n_positions > 2 ? height_ : all, all};
  for (int axis = 0; axis < n_positions; ++axis) {
    const std::int64_t length = lengths[axis];
    const bool is_one = first / length == last / length;
    range->lo[axis] = is_one ? static_cast<float>(first % length) : 0.0F;
    range->hi[axis] = static_cast<float>(is_one ? last % length : length - 1);
    first /= length;
    last /= length;
  }
}

FeatureRange Features::range(std::int64_t begin, std::int64_t end) const {
  const float infinity = std::numeric_limits<float>::infinity();
  const auto dim = static_cast<std::size_t>(dim_);
  FeatureRange range{std::vector<float>(dim, infinity), std::vector<float>(dim, -infinity)};
  const int n_positions = dim_ - n_columns_;
  if (n_columns_ > 0) {
    with_columns(begin, [&](const auto* from) {
      scan(from, end - begin, n_columns_, range.lo.data() + n_positions,
           range.hi.data() + n_positions);
    });
  }
  if (width_ == 0) return range;
  bound_positions(begin, end - 1, &range);
  // Rounding is monotonous: the bounds of the products are the products of the bounds.
  for (std::size_t axis = 0; axis < dim; ++axis) {
    range.lo[axis] *= inverse_sigmas_[axis];
    range.hi[axis] *= inverse_sigmas_[axis];
  }
  return range;
}

std::vector<FeatureRange> Features::ranges(const Strips& strips, int threads) const {
  std::vector<FeatureRange> ranges(static_cast<std::size_t>(strips.count));
  parallel_for(strips.count, threads,
               [&](std::int64_t s) { ranges[s] = range(strips.begin(s), strips.end(s)); });
  for (const FeatureRange& each : ranges) {
    if (!all_finite(each.lo) || !all_finite(each.hi)) explain_non_finite(strips);
  }
  return ranges;
}

void Features::explain_non_finite(const Strips& strips) const {
  float block[kernels::max_corners][kernels::simplex_batch];
  for (std::int64_t point = 0; point < strips.n_points; ++point) {
    load(point, 1, block);
    for (int axis = 0; axis < dim_; ++axis) {
      if (!std::isfinite(block[axis][0])) throw NonFiniteFeature(point, axis, block[axis][0]);
    }
  }
  throw Error("features are not finite in range only");
}

}  // namespace crfseg
