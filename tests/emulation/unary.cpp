// SPDX-License-Identifier: MIT
// Unaries of a device equal the CPU's: upsampled, of hard labels, of 16 bits.
#include <algorithm>

#include "marginals.h"

namespace {

using namespace twins;
using crfseg::CoarseGrid;
using crfseg::LabelEnergies;
using crfseg::UnaryReport;

// ---- coarse scores

SetDevice set_coarse(const Values& scores, const CoarseGrid& grid, UnaryKind kind) {
  return [&scores, grid, kind](cuda::MeanField* field) {
    field->set_coarse_unary(scores.all(), grid, kind, clip);
  };
}

// The foreground's values stand for both labels.
LabelView<const float> cpu_item(const Values& scores, std::int64_t item, UnaryKind kind) {
  LabelView<const float> view = scores.item(item);
  if (kind == UnaryKind::foreground) view = {view.data, 2, view.n_points, 0, view.point_stride};
  return view;
}

SetCpu cpu_coarse(const Values& scores, const CoarseGrid& grid, UnaryKind kind) {
  return [&scores, grid, kind](crfseg::MeanField* field, std::int64_t item) {
    field->set_coarse_unary(cpu_item(scores, item, kind), grid, kind, clip, 1);
  };
}

void check_coarse(const CoarseGrid& grid, int n_labels, UnaryKind kind, bool labels_last) {
  const Model model = model_of(2, grid.height, grid.width, n_labels);
  const Values scores = random_values(2, kind == UnaryKind::foreground ? 1 : n_labels,
                                      grid.rows * grid.columns, kind, labels_last);
  check_marginals(model, cpu_coarse(scores, grid, kind), set_coarse(scores, grid, kind));
}

void check_all_coarse() {
  for (const bool align_corners : {false, true}) {
    for (const bool labels_last : {false, true}) {
      for (const int n_labels : {1, 2, 21}) {
        check_coarse({5, 6, 19, 23, align_corners}, n_labels, UnaryKind::probabilities,
                     labels_last);
        check_coarse({17, 18, 33, 35, align_corners}, n_labels, UnaryKind::logits, labels_last);
      }
      check_coarse({4, 7, 17, 30, align_corners}, 2, UnaryKind::foreground, labels_last);
    }
    check_coarse({1, 1, 18, 5, align_corners}, 3, UnaryKind::probabilities, false);
    check_coarse({3, 4, 1, 40, align_corners}, 3, UnaryKind::logits, false);
    check_coarse({9, 9, 9, 9, align_corners}, 3, UnaryKind::probabilities, false);
  }
}

void check_coarse_findings() {
  const CoarseGrid grid{4, 5, 16, 20, false};
  const Model model = model_of(2, 16, 20, 3);
  Values scores = random_values(2, 3, 20, UnaryKind::probabilities, false);
  const auto agree = [&](bool is_bad) {
    const auto field = device_field(model, set_coarse(scores, grid, UnaryKind::probabilities));
    const cuda::UnaryFindings found = field->findings();
    float low = 1.0F, off = 0.0F;
    for (std::int64_t item = 0; item < 2; ++item) {
      crfseg::MeanField cpu(320, 3);
      const UnaryReport report =
          cpu.set_coarse_unary(scores.item(item), grid, UnaryKind::probabilities, clip, 1);
      low = std::min(low, report.low);
      off = std::max(off, report.off);
    }
    CHECK(found.is_bad == is_bad && found.low == low && (is_bad || found.off == off));
  };
  agree(false);
  scores.at(1, 2, 7) = -0.5F;
  agree(false);
  scores.at(1, 1, 3) += 0.25F;
  agree(false);
  scores.at(0, 0, 19) = INFINITY;
  agree(true);
}

// ---- hard labels

void check_labels() {
  for (const int n_labels : {1, 2, 6, 21}) {
    for (const int forbidden : {-1, 1}) {
      if (forbidden >= 0 && n_labels < 3) continue;
      const Model model = model_of(2, 13, 21, n_labels);
      const std::int64_t n = model.scene.n_points();
      std::vector<std::int32_t> labels(static_cast<std::size_t>(2 * n));
      check::Random random(3);
      for (std::int32_t& label : labels) {
        label = static_cast<std::int32_t>(random.bits() % static_cast<unsigned>(n_labels + 2)) - 1;
        if (label == forbidden) label = -1;
      }
      const LabelEnergies energies{0.3F, 2.5F, 1.25F, forbidden};
      check_marginals(
          model,
          [&](crfseg::MeanField* field, std::int64_t item) {
            field->lend_labels(labels.data() + item * n, energies);
          },
          [&](cuda::MeanField* field) { field->set_labels(labels.data(), energies); });
    }
  }
}

// After other unaries, nothing of theirs is left in energies.
void check_energy_of_labels() {
  const Model model = model_of(1, 9, 14, 3);
  const Values values = random_values(1, 3, 126, UnaryKind::energies, false);
  const std::vector<std::int32_t> labels(126, 2);
  const LabelEnergies energies{0.3F, 2.5F, 1.25F, -1};
  const auto field = device_field(model, [&](cuda::MeanField* of) {
    of->set_unary(values.all(), UnaryKind::energies, clip);
    of->set_labels(labels.data(), energies);
  });
  const auto fresh =
      device_field(model, [&](cuda::MeanField* of) { of->set_labels(labels.data(), energies); });
  CHECK(field->energy(labels.data()) == fresh->energy(labels.data()));
  CHECK(!field->findings().is_bad && field->findings().low == 0.0F);
}

// ---- 16 bits

cuda::Float16 as(cuda::Float16, float value) { return cuda::to_float16(value); }
cuda::BFloat16 as(cuda::BFloat16, float value) { return cuda::to_bfloat16(value); }

template <class Half>
std::vector<Half> narrowed(Values* values) {
  std::vector<Half> halves;
  for (float& value : values->data) {
    halves.push_back(as(Half{}, value));
    value = cuda::to_float(halves.back());
  }
  return halves;
}

// Halves are read as the floats that they are.
template <class Half>
void check_half_inputs(UnaryKind kind, bool labels_last) {
  const CoarseGrid grid{5, 6, 19, 23, false};
  const int n_labels = kind == UnaryKind::foreground ? 2 : 5;
  const Model model = model_of(2, grid.height, grid.width, n_labels);
  const std::int64_t given = kind == UnaryKind::foreground ? 1 : n_labels;
  for (const bool is_coarse : {false, true}) {
    if (is_coarse && kind == UnaryKind::energies) continue;
    const std::int64_t n = is_coarse ? grid.rows * grid.columns : model.scene.n_points();
    Values values = random_values(2, given, n, kind, labels_last);
    const std::vector<Half> halves = narrowed<Half>(&values);
    const cuda::BatchView<const Half> view{halves.data(), values.item_stride, values.label_stride,
                                           values.point_stride};
    const auto found = [&](const cuda::ScoreView& scores) {
      return device_marginals(
          model,
          [&](cuda::MeanField* field) {
            if (is_coarse) field->set_coarse_unary(scores, grid, kind, clip);
            if (!is_coarse) field->set_unary(scores, kind, clip);
          },
          1);
    };
    CHECK(found(view) == found(values.all()));
  }
}

template <class Half>
void check_half_outputs() {
  const Model model = model_of(2, 17, 22, 5);
  const Values values = random_values(2, 5, 374, UnaryKind::logits, false);
  const SetDevice set = [&](cuda::MeanField* field) {
    field->set_unary(values.all(), UnaryKind::logits, clip);
  };
  std::vector<float> q(2 * model.of_item());
  std::vector<Half> halves(q.size());
  std::vector<std::int32_t> labels(2 * 374, -1);
  std::vector<std::uint8_t> bytes(2 * 374, 77);
  cuda::FieldOptions options;
  options.iterations = 2;
  const auto field = device_field(model, set);
  field->infer({}, options, view_of(model, &q), labels.data());
  field->infer({}, options, view_of(model, &halves), bytes.data());
  for (std::size_t i = 0; i < q.size(); ++i) CHECK(halves[i].bits == as(Half{}, q[i]).bits);
  CHECK(std::equal(labels.begin(), labels.end(), bytes.begin()));
  const Model many = model_of(1, 4, 5, 257);
  const std::vector<std::int32_t> unknown(20, -1);
  const auto too_many = device_field(
      many, [&](cuda::MeanField* of) { of->set_labels(unknown.data(), {0.0F, 1.0F, 1.0F, -1}); });
  CHECK_THROWS(too_many->infer({}, options, {}, bytes.data()), crfseg::Error);
}

template <class Half>
void check_halves() {
  for (const bool labels_last : {false, true}) {
    for (const UnaryKind kind : {UnaryKind::energies, UnaryKind::probabilities, UnaryKind::logits,
                                 UnaryKind::foreground}) {
      check_half_inputs<Half>(kind, labels_last);
    }
  }
  check_half_outputs<Half>();
}

}  // namespace

int main() {
  check_all_coarse();
  check_coarse_findings();
  check_labels();
  check_energy_of_labels();
  check_halves<cuda::Float16>();
  check_halves<cuda::BFloat16>();
  return check::result();
}
