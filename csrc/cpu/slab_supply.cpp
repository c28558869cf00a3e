// SPDX-License-Identifier: MIT
#include "cpu/slab_supply.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cpu/vertex_rows.h"

namespace crfseg {
namespace {

constexpr std::int64_t sampled = 4096;  // points or cells, about
constexpr std::int64_t run = 8;         // neighbours that are looked at together
constexpr int most_held = 2;            // slabs

// Rows behind the last point can be read in groups.
constexpr std::int64_t spare_rows = kernels::most_batched;

UnarySupply without_rows(UnarySupply unary, std::int64_t n_points, int n_labels, int width) {
  if (unary.rows == nullptr) return unary;
  unary.values = {unary.rows, n_labels, n_points, 1, width};
  unary.kind = UnaryKind::logits;
  unary.rows = nullptr;
  return unary;
}

// Adds up the squares of the probabilities that entries stand for: many small ones weigh little.
// Nobody has looked at the entries: NaN, which has no order, counts nothing.
template <class Entry>
void add_squares(UnaryKind kind, Entry entry, std::vector<double>* mass) {
  const auto n = static_cast<int>(mass->size());
  const float sign = kind == UnaryKind::energies ? -1.0F : 1.0F;
  float top = sign * entry(0);
  for (int a = 1; a < n; ++a) top = std::max(top, sign * entry(a));
  const bool is_probability = kind == UnaryKind::probabilities;
  for (int a = 0; a < n; ++a) {
    const float p = is_probability ? entry(a) : std::exp(sign * entry(a) - top);
    if (p > 0.0F) (*mass)[a] += static_cast<double>(p * p);
  }
}

void add_cells(const CoarseScores& scores, UnaryKind kind, std::vector<double>* mass) {
  const std::int64_t step = std::max<std::int64_t>(1, scores.n_cells() / sampled);
  for (std::int64_t i = 0; i < scores.n_cells(); i += step) {
    const float* row = scores.cell(i);
    add_squares(kind, [row](int a) { return row[a]; }, mass);
  }
}

void add_point(const UnarySupply& unary, std::int64_t p, std::vector<double>* mass) {
  if (!unary.labels) {
    return add_squares(unary.kind, [&](int a) { return unary.values(a, p); }, mass);
  }
  const std::int32_t label = *unary.labels->from(p).label;
  if (label >= 0 && label < static_cast<std::int64_t>(mass->size())) (*mass)[label] += 1.0;
}

std::vector<double> masses(const UnarySupply& unary, std::int64_t n_points, int n_labels) {
  std::vector<double> mass(static_cast<std::size_t>(n_labels));
  if (unary.coarse) {
    add_cells(*unary.coarse, unary.kind, &mass);
    return mass;
  }
  const std::int64_t step = std::max(run, n_points / (sampled / run) / run * run);
  for (std::int64_t first = 0; first < n_points; first += step) {
    const std::int64_t last = std::min(first + run, n_points);
    for (std::int64_t p = first; p < last; ++p) add_point(unary, p, &mass);
  }
  return mass;
}

std::vector<std::int32_t> by_mass(const UnarySupply& unary, std::int64_t n_points, int n_labels) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(n_labels));
  std::iota(order.begin(), order.end(), 0);
  if (n_labels <= kernels::slab_width) return order;
  const std::vector<double> mass = masses(unary, n_points, n_labels);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return mass[a] > mass[b]; });
  return order;
}

}  // namespace

SlabSupply::SlabSupply(const UnarySupply& unary, const Strips& strips, int n_labels, int width,
                       int most_together, Buffer<float>* p)
    : unary_(without_rows(unary, strips.n_points, n_labels, width)),
      strips_(strips),
      order_(by_mass(unary_, strips.n_points, n_labels)),
      place_(order_.size()),
      p_(p) {
  for (int i = 0; i < n_labels; ++i) place_[order_[i]] = i;
  cut(n_labels, n_labels <= most_together ? most_together : kernels::slab_width);
  if (unary_.values) hold_p();
  if (unary_.coarse) hold_cells(*unary_.coarse);
  if (unary_.labels) hold_tables(*unary_.labels);
}

void SlabSupply::cut(int n_labels, int most) {
  for (int first = 0; first < n_labels; first += most) {
    const int n = std::min(n_labels - first, most);
    const int width = std::max(4, row_width(n));
    slabs_.push_back({order_.data() + first, first, n, width, nullptr, nullptr, nullptr});
    width_ += width;
  }
}

void SlabSupply::hold_p() {
  n_held_ = unary_.values.point_stride == 1 ? std::min(n_slabs(), most_held) : n_slabs();
  std::int64_t width = 0;
  for (int g = 0; g < n_held_; ++g) width += slabs_[g].width;
  p_->resize((strips_.n_points + spare_rows) * width);
}

bool SlabSupply::needs_top() const {
  const bool is_probability =
      unary_.kind == UnaryKind::probabilities || unary_.kind == UnaryKind::foreground;
  return !is_probability && !unary_.labels;
}

void SlabSupply::hold_cells(const CoarseScores& scores) {
  const float factor = mixes_logits() ? kernels::log2_e : 1.0F;
  cells_.resize(scores.n_cells() * width_);
  least_.resize(width_);
  std::fill(least_.begin(), least_.end(), 0.0F);
  float* place = cells_.data();
  for (kernels::Slab& slab : slabs_) {
    slab.cells = place;
    slab.least = least_.data() + slab.first;
    for (int i = 0; i < slab.n_labels; ++i) {
      least_[slab.first + i] = scores.least(slab.label[i]);
    }
    for (std::int64_t cell = 0; cell < scores.n_cells(); ++cell, place += slab.width) {
      std::fill_n(place, slab.width, mixes_logits() ? kernels::log_zero : 0.0F);
      for (int i = 0; i < slab.n_labels; ++i) {
        place[i] = scores.cell(cell)[slab.label[i]] * factor;
      }
    }
  }
}

void SlabSupply::hold_tables(const HardLabels& labels) {
  const kernels::LabelTable table = labels.from(0).start;
  const auto reordered = [this](const float* values) {
    std::vector<float> row(static_cast<std::size_t>(width_), 0.0F);
    for (std::size_t i = 0; i < order_.size(); ++i) row[i] = values[order_[i]];
    return row;
  };
  others_ = reordered(table.others);
  unknown_ = reordered(table.unknown);
}

kernels::UnarySource SlabSupply::source(std::int64_t strip) const {
  kernels::UnarySource source = unary_.strip(strips_, strip, width_);
  if (unary_.labels) {
    source.labels.start.others = others_.data();
    source.labels.start.unknown = unknown_.data();
  }
  return source;
}

std::vector<kernels::Slab> SlabSupply::slabs(std::int64_t strip) const {
  std::vector<kernels::Slab> slabs = slabs_;
  float* place = p_->data();
  for (int g = 0; g < n_held_; ++g) {
    kernels::Slab& slab = slabs[g];
    slab.p = place + strips_.begin(strip) * slab.width;
    place += (strips_.n_points + spare_rows) * slab.width;
  }
  return slabs;
}

}  // namespace crfseg
