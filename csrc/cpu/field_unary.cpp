// SPDX-License-Identifier: MIT
// A mean field's unaries: read into rows, or lent.
#include <memory>
#include <mutex>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/unary_supply.h"
#include "mean_field.h"
#include "parallel.h"

namespace crfseg {

UnaryReport MeanField::set_unary(LabelView<const float> values, UnaryKind kind, float clip,
                                 int threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  unary_ = {nullptr, values, kind, clip};
  return load_rows(threads);
}

void MeanField::lend_unary(LabelView<const float> values, UnaryKind kind, float clip) {
  const std::lock_guard<std::mutex> lock(mutex_);
  unary_ = {nullptr, values, kind, clip};
}

UnaryReport MeanField::set_coarse_unary(LabelView<const float> scores, const CoarseGrid& grid,
                                        UnaryKind kind, float clip, int threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  UnaryReport report;
  unary_ = {};
  unary_.kind = kind;
  unary_.coarse =
      std::make_shared<CoarseScores>(scores, grid, kind, clip, width_, threads, &report);
  return report;
}

void MeanField::lend_labels(const std::int32_t* labels, const LabelEnergies& energies) {
  const std::lock_guard<std::mutex> lock(mutex_);
  unary_ = {};
  unary_.labels = std::make_shared<HardLabels>(labels, energies, n_labels_, width_);
}

UnaryReport MeanField::load_rows(int threads) {
  log_unary_.resize(strips_.n_points * width_);
  std::vector<kernels::UnaryStats> parts(static_cast<std::size_t>(strips_.count));
  parallel_for(strips_.count, threads, [&](std::int64_t s) {
    const std::int64_t begin = strips_.begin(s);
    parts[s] = empty_stats();
    active_kernels().load_unary(unary_.strip(strips_, s, width_), n_labels_, width_,
                                log_unary_.data() + begin * width_, &parts[s]);
  });
  unary_ = {log_unary_.data(), {}, UnaryKind::energies, 0.0F};
  const UnaryReport report = merge(strips_, parts);
  unary_offset_ = report.offset;
  return report;
}

}  // namespace crfseg
