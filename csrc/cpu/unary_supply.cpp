// SPDX-License-Identifier: MIT
#include "cpu/unary_supply.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/dispatch.h"
#include "cpu/taps.h"
#include "parallel.h"

namespace crfseg {

kernels::UnarySource UnarySupply::strip(const Strips& strips, std::int64_t s, int width) const {
  const std::int64_t begin = strips.begin(s);
  kernels::UnarySource source{};
  source.n_points = strips.end(s) - begin;
  source.kind = static_cast<kernels::UnaryKind>(kind);
  if (rows != nullptr) {
    source.rows = rows + begin * width;
  } else if (labels) {
    source.labels = labels->from(begin);
  } else if (coarse) {
    source.coarse = coarse->from(begin);
  } else {
    source.values = strip_of(values, begin);
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

CoarseScores::CoarseScores(LabelView<const float> scores, const CoarseGrid& grid, UnaryKind kind,
                           float clip, int width, int threads, UnaryReport* report)
    : rows_(scores.n_points * width),
      least_(width),
      down_(taps(grid.rows, grid.height, grid.align_corners)),
      across_(taps(grid.columns, grid.width, grid.align_corners)),
      columns_(grid.columns),
      width_(width) {
  std::fill(least_.begin(), least_.end(), 0.0F);
  std::fill_n(least_.begin(), scores.n_labels, clip);
  const Strips strips = Strips::of(scores.n_points);
  std::vector<kernels::UnaryStats> parts(static_cast<std::size_t>(strips.count));
  parallel_for(strips.count, threads, [&](std::int64_t s) {
    const std::int64_t begin = strips.begin(s);
    parts[s] = empty_stats();
    active_kernels().load_coarse(strip_of(scores, begin), static_cast<kernels::UnaryKind>(kind),
                                 strips.end(s) - begin, static_cast<int>(scores.n_labels), width,
                                 rows_.data() + begin * width, &parts[s]);
  });
  *report = merge(strips, parts);
}

kernels::CoarseSource CoarseScores::from(std::int64_t first_pixel) const {
  return {rows_.data(),   least_.data(), down_.data(),
          across_.data(), columns_,      static_cast<std::int64_t>(across_.size()),
          first_pixel};
}

HardLabels::HardLabels(const std::int32_t* labels, const LabelEnergies& energies, int n_labels,
                       int width)
    : labels_(labels), log_given_(-energies.given) {
  const bool forbids = energies.forbidden >= 0 && energies.forbidden < n_labels;
  const int n_allowed = n_labels - (forbids ? 1 : 0);
  // A point's own label may be far less probable than others: divide by what is not too small.
  const double lowest = std::min(energies.given, energies.other);
  const double given = std::exp(lowest - energies.given), other = std::exp(lowest - energies.other);
  const double sum = given + (n_allowed - 1) * other;
  given_ = static_cast<float>(given / sum);
  const auto row = [&](double value, float elsewhere) {
    std::vector<float> values(static_cast<std::size_t>(width), elsewhere);
    std::fill_n(values.begin(), n_labels, static_cast<float>(value));
    if (forbids) values[static_cast<std::size_t>(energies.forbidden)] = elsewhere;
    return values;
  };
  log_others_ = row(-energies.other, kernels::log_zero);
  log_unknown_ = row(-energies.unknown, kernels::log_zero);
  others_ = row(other / sum, 0.0F);
  unknown_ = row(1.0 / n_allowed, 0.0F);
}

kernels::LabelSource HardLabels::from(std::int64_t first) const {
  return {labels_ + first,
          {log_others_.data(), log_given_, log_unknown_.data()},
          {others_.data(), given_, unknown_.data()}};
}

}  // namespace crfseg
