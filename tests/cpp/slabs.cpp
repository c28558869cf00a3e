// SPDX-License-Identifier: MIT
// Inference with labels in slabs against the one with all labels in a row: every kind and layout of
// unaries, numbers of labels and of points at the edges, every instruction set. This is what the
// sanitizers watch.
#include <string>

#include "check.h"
#include "cpu/dispatch.h"
#include "instruction_sets.h"
#include "mean_field.h"

using crfseg::LabelView;
using crfseg::Lattice;
using crfseg::MeanField;
using crfseg::UnaryKind;

namespace {

std::shared_ptr<const Lattice> lattice_of(std::int64_t n, int dim) {
  const auto features = check::Random(11).uniforms(n * dim, -2.0F, 2.0F);
  return std::make_shared<Lattice>(features.data(), n, dim, std::vector<int>{}, 1, 1);
}

struct Found {
  std::vector<float> q;  // (n_labels, n_points)
  std::vector<std::int32_t> labels;
  std::int64_t evaluations;
};

Found infer(MeanField* field, const crfseg::InferenceOptions& options) {
  const std::int64_t n = field->n_points();
  Found found;
  found.q.resize(static_cast<std::size_t>(n * field->n_labels()));
  found.labels.resize(static_cast<std::size_t>(n));
  const LabelView<float> out{found.q.data(), field->n_labels(), n, n, 1};
  found.evaluations = field->infer({}, options, out, found.labels.data()).evaluations;
  return found;
}

void labels_are_the_most_probable(const Found& found) {
  const std::size_t n = found.labels.size();
  for (std::size_t p = 0; p < n; ++p) {
    const float most = found.q[std::size_t(found.labels[p]) * n + p];
    for (std::size_t i = p; i < found.q.size(); i += n) CHECK(found.q[i] <= most);
  }
}

// What the field's unaries are has been said.
void check_both_ways(MeanField* field) {
  crfseg::InferenceOptions options;
  options.iterations = 4;
  options.threads = 2;
  options.skip = true;
  const Found skipped = infer(field, options);
  options.skip = false;
  const Found full = infer(field, options);
  options.tolerance = 1e-30F;  // all labels in a row
  const Found watched = infer(field, options);
  CHECK(check::largest_difference(full.q, watched.q) < 1e-5);
  CHECK(check::largest_difference(skipped.q, watched.q) < 3e-4);
  CHECK(skipped.evaluations <= full.evaluations);
  labels_are_the_most_probable(skipped);
  labels_are_the_most_probable(full);
}

// Lattices of these dimensions: one of 5 and one of 2 are walked together, whichever comes first.
using Dims = std::vector<int>;

void add_kernels(MeanField* field, const Dims& dims) {
  for (const int dim : dims) {
    field->add_kernel(lattice_of(field->n_points(), dim), crfseg::Normalization::symmetric, 3.0F,
                      {}, false, 1);
  }
}

constexpr int numbers_of_labels[] = {2, 4, 5, 9, 16, 17, 21, 40, 70};
constexpr std::int64_t numbers_of_points[] = {1, 7, 8, 33};  // in one strip

// Sure of one label each, so that others can be left out; as energies, logits or probabilities.
std::vector<float> scores_of(UnaryKind kind, std::int64_t n, int n_labels) {
  check::Random random(12);
  auto scores = random.uniforms(n * n_labels, 0.0F, 2.0F);
  for (std::int64_t p = 0; p < n; ++p) {
    scores[std::size_t((p / 64 % n_labels) * n + p)] += 20.0F;
    double sum = 0.0;
    for (int l = 0; l < n_labels; ++l) sum += std::exp(double(scores[std::size_t(l * n + p)]));
    for (int l = 0; l < n_labels; ++l) {
      float& score = scores[std::size_t(l * n + p)];
      if (kind == UnaryKind::energies) score = -score;
      if (kind == UnaryKind::probabilities) score = float(std::exp(double(score)) / sum);
    }
  }
  if (kind == UnaryKind::energies && n_labels > 2) scores[std::size_t(n)] = INFINITY;
  return scores;
}

void arrays_of_every_kind_and_layout(std::int64_t n, int n_labels, const Dims& dims) {
  for (const auto kind : {UnaryKind::energies, UnaryKind::logits, UnaryKind::probabilities}) {
    const auto planes = scores_of(kind, n, n_labels);
    std::vector<float> rows(planes.size());
    for (std::int64_t i = 0; i < n * n_labels; ++i) {
      rows[std::size_t(i % n * n_labels + i / n)] = planes[std::size_t(i)];
    }
    MeanField field(n, n_labels);
    add_kernels(&field, dims);
    field.lend_unary({planes.data(), n_labels, n, n, 1}, kind, 1e-5F);
    check_both_ways(&field);
    field.lend_unary({rows.data(), n_labels, n, 1, n_labels}, kind, 1e-5F);
    check_both_ways(&field);
    field.set_unary({planes.data(), n_labels, n, n, 1}, kind, 1e-5F, 1);
    check_both_ways(&field);
  }
}

void any_number_of_points_and_labels(const Dims& dims) {
  for (const int n_labels : numbers_of_labels) {
    for (const std::int64_t n : numbers_of_points) {
      arrays_of_every_kind_and_layout(n, n_labels, dims);
    }
  }
  for (const int n_labels : {5, 21, 70}) arrays_of_every_kind_and_layout(4099, n_labels, dims);
}

// More rows in a strip than 16 bits count.
void strips_of_many_rows() {
  const std::int64_t n = 4096;
  const auto features = check::Random(3).uniforms(n * 16, -40.0F, 40.0F);
  const auto lattice = std::make_shared<Lattice>(features.data(), n, 16, std::vector<int>{}, 1, 1);
  CHECK(lattice->wide_corner_row[0].size() > 0);
  for (const int n_labels : {5, 40}) {
    const auto scores = scores_of(UnaryKind::logits, n, n_labels);
    MeanField field(n, n_labels);
    field.add_kernel(lattice, crfseg::Normalization::symmetric, 3.0F, {}, false, 1);
    add_kernels(&field, {2});
    field.lend_unary({scores.data(), n_labels, n, n, 1}, UnaryKind::logits, 1e-5F);
    check_both_ways(&field);
  }
}

// Neighbours on a line agree on one of many labels: slabs are left out, and those that are not are
// read from the caller's array again.
void labels_are_left_out() {
  const std::int64_t n = 4099;
  std::vector<float> line(static_cast<std::size_t>(n));
  for (std::int64_t p = 0; p < n; ++p) line[std::size_t(p)] = float(p) / 20.0F;
  const auto lattice = std::make_shared<Lattice>(line.data(), n, 1, std::vector<int>{}, 1, 1);
  for (const auto kind : {UnaryKind::energies, UnaryKind::logits, UnaryKind::probabilities}) {
    const auto scores = scores_of(kind, n, 70);
    MeanField field(n, 70);
    field.add_kernel(lattice, crfseg::Normalization::symmetric, 3.0F, {}, false, 1);
    field.lend_unary({scores.data(), 70, n, n, 1}, kind, 1e-5F);
    check_both_ways(&field);
    crfseg::InferenceOptions options;
    options.skip = true;
    CHECK(infer(&field, options).evaluations < options.iterations * n * 70);
  }
}

void coarse_scores() {
  const crfseg::CoarseGrid grid{6, 9, 41, 67, false};
  for (const int n_labels : numbers_of_labels) {
    for (const auto kind : {UnaryKind::logits, UnaryKind::probabilities}) {
      const auto scores = scores_of(kind, 54, n_labels);
      MeanField field(41 * 67, n_labels);
      add_kernels(&field, {5, 2});
      field.set_coarse_unary({scores.data(), n_labels, 54, 54, 1}, grid, kind, 1e-5F, 1);
      check_both_ways(&field);
    }
  }
}

void hard_labels() {
  for (const int n_labels : numbers_of_labels) {
    check::Random random(5);
    std::vector<std::int32_t> labels(4099);
    for (auto& label : labels) label = std::int32_t(random.bits() % 80) - 3;
    MeanField field(4099, n_labels);
    add_kernels(&field, {5, 2});
    field.lend_labels(labels.data(), {0.1F, 8.0F, 1.0F, n_labels > 2 ? 1 : -1});
    check_both_ways(&field);
  }
}

}  // namespace

int main() {
  const std::string best = crfseg::active_kernels().name;
  for (const std::string& isa : check::instruction_sets()) {
    crfseg::set_isa(isa);
    coarse_scores();
    hard_labels();
    labels_are_left_out();
    strips_of_many_rows();
    any_number_of_points_and_labels({5, 2});
    if (isa != best) continue;
    for (const Dims& dims : {Dims{2}, Dims{3, 3}, Dims{2, 5, 3}}) {
      any_number_of_points_and_labels(dims);
    }
  }
  return check::result();
}
