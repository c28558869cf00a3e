// SPDX-License-Identifier: MIT
// Unaries that are made while they are read, against arrays of them: every width of rows, every
// instruction set, sizes at the edges. This is what the sanitizers watch.
#include <algorithm>
#include <utility>

#include "check.h"
#include "cpu/dispatch.h"
#include "mean_field.h"

using crfseg::CoarseGrid;
using crfseg::LabelView;
using crfseg::MeanField;
using crfseg::UnaryKind;

namespace {

LabelView<const float> view(const std::vector<float>& values, std::int64_t n_labels) {
  const auto n_points = static_cast<std::int64_t>(values.size()) / n_labels;
  return {values.data(), n_labels, n_points, n_points, 1};
}

// softmax(-U), (n_labels, n_points)
std::vector<float> start_of(MeanField* field) {
  std::vector<float> q(static_cast<std::size_t>(field->n_points() * field->n_labels()));
  crfseg::InferenceOptions options;
  options.iterations = 0;
  options.threads = 2;
  const std::int64_t n = field->n_points();
  field->infer({}, options, {q.data(), field->n_labels(), n, n, 1}, nullptr);
  return q;
}

void make_probabilities(std::vector<float>* values, std::size_t n_points) {
  for (std::size_t p = 0; p < n_points; ++p) {
    float sum = 0.0F;
    for (std::size_t i = p; i < values->size(); i += n_points) sum += std::exp((*values)[i]);
    for (std::size_t i = p; i < values->size(); i += n_points) {
      (*values)[i] = std::exp((*values)[i]) / sum;
    }
  }
}

// The cell before a pixel along one side of the image, and how far it is from there to the next.
std::pair<std::int64_t, double> place(std::int64_t pixel, std::int64_t cells, std::int64_t pixels,
                                      bool align_corners) {
  double at = (double(pixel) + 0.5) * double(cells) / double(pixels) - 0.5;
  if (align_corners) at = pixels == 1 ? 0.0 : double(pixel) * double(cells - 1) / (pixels - 1.0);
  at = std::fmin(std::fmax(at, 0.0), double(cells - 1));
  return {static_cast<std::int64_t>(at), at - std::floor(at)};
}

// The scores of one label at one pixel, one interpolation after the other.
double bilinear(const float* scores, const CoarseGrid& grid, std::int64_t y, std::int64_t x) {
  const auto [row, down] = place(y, grid.rows, grid.height, grid.align_corners);
  const auto [column, across] = place(x, grid.columns, grid.width, grid.align_corners);
  const std::int64_t right = std::min(column + 1, grid.columns - 1);
  const float* above = scores + row * grid.columns;
  const float* below = scores + std::min(row + 1, grid.rows - 1) * grid.columns;
  const double top = (1.0 - across) * above[column] + across * above[right];
  const double bottom = (1.0 - across) * below[column] + across * below[right];
  return (1.0 - down) * top + down * bottom;
}

void coarse_scores_are_upsampled(const CoarseGrid& grid, UnaryKind kind) {
  const std::int64_t n_cells = grid.rows * grid.columns, n_points = grid.height * grid.width;
  for (int n_labels : {1, 2, 4, 5, 8, 11, 21, 40}) {
    auto scores = check::Random(3).uniforms(n_labels * n_cells, -5.0F, 5.0F);
    if (kind == UnaryKind::probabilities) make_probabilities(&scores, std::size_t(n_cells));
    std::vector<float> full;
    for (std::int64_t i = 0; i < n_labels * n_points; ++i) {
      const float* of_label = scores.data() + i / n_points * n_cells;
      const std::int64_t pixel = i % n_points;
      full.push_back(float(bilinear(of_label, grid, pixel / grid.width, pixel % grid.width)));
    }
    MeanField field(n_points, n_labels);
    field.lend_unary(view(full, n_labels), kind, 1e-5F);
    const std::vector<float> expected = start_of(&field);
    field.set_coarse_unary(view(scores, n_labels), grid, kind, 1e-5F, 2);
    CHECK(field.nbytes() > 0);
    CHECK(check::largest_difference(start_of(&field), expected) < 3e-6);
  }
}

void coarse_scores_are_reported_on() {
  auto scores = check::Random(4).uniforms(3 * 20, 0.0F, 1.0F);
  scores[27] = -2.0F;
  scores[45] = INFINITY;
  MeanField field(320, 3);
  const auto report = field.set_coarse_unary(view(scores, 3), {4, 5, 16, 20, false},
                                             UnaryKind::probabilities, 1e-5F, 2);
  CHECK(report.bad == 45);
  CHECK(report.low == -2.0F && report.low_at == 27);
}

void labels_have_their_energies() {
  const std::int64_t n = 5000;
  for (int n_labels : {1, 2, 4, 9, 24, 33}) {
    for (int forbidden : {-1, 1}) {
      if (forbidden >= n_labels || (forbidden >= 0 && n_labels < 3)) continue;
      check::Random random(5);
      std::vector<std::int32_t> labels(static_cast<std::size_t>(n));
      std::vector<float> energies(static_cast<std::size_t>(n * n_labels), 2.0F);
      for (std::int64_t p = 0; p < n; ++p) {
        const auto label = static_cast<std::int32_t>(random.bits() % std::uint64_t(n_labels + 2));
        const bool is_known = label < n_labels && label != forbidden;
        labels[std::size_t(p)] = is_known ? label : label % 2 == 0 ? -1 : n_labels + 7;
        for (int l = 0; l < n_labels; ++l) {
          float& energy = energies[std::size_t(l * n + p)];
          if (!is_known) energy = 1.0F;
          if (l == label) energy = is_known ? 0.25F : 1.0F;
          if (l == forbidden) energy = INFINITY;
        }
      }
      MeanField field(n, n_labels);
      field.lend_unary(view(energies, n_labels), UnaryKind::energies, 0.0F);
      const std::vector<float> expected = start_of(&field);
      field.lend_labels(labels.data(), {0.25F, 2.0F, 1.0F, forbidden});
      CHECK(check::largest_difference(start_of(&field), expected) < 2e-6);
    }
  }
}

void a_foreground_is_two_labels() {
  for (std::int64_t n : {1, 7, 8, 9, 4100}) {
    const auto soft = check::Random(6).uniforms(n, 0.0F, 1.0F);
    std::vector<float> both(static_cast<std::size_t>(2 * n));
    std::transform(soft.begin(), soft.end(), both.begin(), [](float p) { return 1.0F - p; });
    std::copy(soft.begin(), soft.end(), both.begin() + n);
    MeanField field(n, 2);
    field.lend_unary(view(both, 2), UnaryKind::probabilities, 1e-5F);
    const std::vector<float> expected = start_of(&field);
    field.lend_unary({soft.data(), 2, n, 0, 1}, UnaryKind::foreground, 1e-5F);
    CHECK(check::largest_difference(start_of(&field), expected) < 2e-6);
  }
}

}  // namespace

int main() {
  for (const std::string& isa : crfseg::available_isas()) {
    crfseg::set_isa(isa);
    for (UnaryKind kind : {UnaryKind::probabilities, UnaryKind::logits}) {
      for (bool align_corners : {false, true}) {
        coarse_scores_are_upsampled({4, 5, 32, 40, align_corners}, kind);
        coarse_scores_are_upsampled({4, 5, 25, 33, align_corners}, kind);
        coarse_scores_are_upsampled({9, 13, 70, 101, align_corners}, kind);
        coarse_scores_are_upsampled({1, 1, 9, 7, align_corners}, kind);
        coarse_scores_are_upsampled({3, 1, 3, 1, align_corners}, kind);
        coarse_scores_are_upsampled({6, 3, 6, 3, align_corners}, kind);
        coarse_scores_are_upsampled({3, 4, 1, 1, align_corners}, kind);
      }
    }
    labels_have_their_energies();
    a_foreground_is_two_labels();
  }
  coarse_scores_are_reported_on();
  return check::result();
}
