// SPDX-License-Identifier: MIT
#include "cpu/unary_supply.h"

#include <limits>

namespace crfseg {

kernels::LabelStrip strip_of(const LabelView<const float>& view, std::int64_t begin) {
  return {const_cast<float*>(view.data) + begin * view.point_stride, view.label_stride,
          view.point_stride};
}

kernels::UnarySource UnarySupply::strip(const Strips& strips, std::int64_t s, int width) const {
  const std::int64_t begin = strips.begin(s);
  kernels::UnarySource source{};
  source.n_points = strips.end(s) - begin;
  if (rows != nullptr) {
    source.rows = rows + begin * width;
  } else {
    source.values = strip_of(values, begin);
    source.kind = static_cast<kernels::UnaryKind>(kind);
    source.clip = clip;
  }
  return source;
}

kernels::UnaryStats empty_stats() {
  return {-1, -1, -1, std::numeric_limits<float>::infinity(), 0.0F, 0.0};
}

UnaryReport merge(const Strips& strips, const std::vector<kernels::UnaryStats>& parts) {
  UnaryReport report;
  report.low = std::numeric_limits<float>::infinity();
  for (std::int64_t s = 0; s < strips.count; ++s) {
    const kernels::UnaryStats& part = parts[s];
    report.offset += part.offset;
    const std::int64_t n = strips.end(s) - strips.begin(s);
    const auto flat = [&](std::int64_t place) {
      return place / n * strips.n_points + strips.begin(s) + place % n;
    };
    if (part.bad >= 0 && (report.bad < 0 || flat(part.bad) < report.bad)) {
      report.bad = flat(part.bad);
    }
    if (part.low < report.low) {
      report.low = part.low;
      report.low_at = flat(part.low_at);
    }
    if (part.off > report.off) {
      report.off = part.off;
      report.off_at = strips.begin(s) + part.off_at;
    }
  }
  return report;
}

}  // namespace crfseg
