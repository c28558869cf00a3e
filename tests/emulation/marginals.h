// SPDX-License-Identifier: MIT
// Fields of both twins with one kernel, and the marginals that they find for a unary.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "cuda/mean_field.h"
#include "mean_field.h"
#include "twins.h"

namespace twins {

using crfseg::LabelView;
using crfseg::Normalization;
using crfseg::UnaryKind;

constexpr float clip = 1e-5F, sigma_xy = 8.0F, sigma_rgb = 20.0F, weight = 3.0F;

// Values (items, labels, points) with room between them.
struct Values {
  std::int64_t n_items, n_labels, n_points, item_stride, label_stride, point_stride;
  std::vector<float> data;

  Values(std::int64_t items, std::int64_t labels, std::int64_t points, bool labels_last)
      : n_items(items),
        n_labels(labels),
        n_points(points),
        item_stride(labels * points + 3),
        label_stride(labels_last ? 1 : points),
        point_stride(labels_last ? labels : 1),
        data(static_cast<std::size_t>(items * item_stride), NAN) {}

  float& at(std::int64_t item, std::int64_t label, std::int64_t point) {
    return data[static_cast<std::size_t>(item * item_stride + label * label_stride +
                                         point * point_stride)];
  }
  LabelView<const float> item(std::int64_t i) const {
    return {data.data() + i * item_stride, n_labels, n_points, label_stride, point_stride};
  }
  cuda::BatchView<const float> all() const {
    return {data.data(), item_stride, label_stride, point_stride};
  }
};

inline Values random_values(std::int64_t items, std::int64_t labels, std::int64_t points,
                            UnaryKind kind, bool labels_last) {
  Values values(items, labels, points, labels_last);
  check::Random random(7);
  for (std::int64_t i = 0; i < items * points; ++i) {
    float sum = 0.0F;
    for (std::int64_t label = 0; label < labels; ++label) {
      const bool is_logit = kind == UnaryKind::logits;
      float& value = values.at(i / points, label, i % points);
      value = is_logit ? random.uniform(-9.0F, 9.0F) : random.uniform(0.0F, 1.0F);
      sum += value;
    }
    for (std::int64_t label = 0; kind == UnaryKind::probabilities && label < labels; ++label) {
      values.at(i / points, label, i % points) /= sum;
    }
  }
  return values;
}

struct Model {
  Scene scene;
  int n_labels;
  std::size_t of_item() const { return static_cast<std::size_t>(n_labels * scene.n_points()); }
};

inline Model model_of(std::int64_t items, std::int64_t height, std::int64_t width, int n_labels) {
  return {scene(items, height, width, 3, sigma_xy, sigma_rgb, 11), n_labels};
}

using SetCpu = std::function<void(crfseg::MeanField*, std::int64_t item)>;
using SetDevice = std::function<void(cuda::MeanField*)>;

inline std::vector<float> cpu_marginals(const Model& model, const SetCpu& set, int iterations) {
  std::vector<float> q(model.of_item() * static_cast<std::size_t>(model.scene.n_items));
  const std::int64_t n = model.scene.n_points();
  for (std::int64_t item = 0; item < model.scene.n_items; ++item) {
    crfseg::MeanField field(n, model.n_labels);
    field.add_kernel(
        std::make_shared<crfseg::Lattice>(pixels_of(model.scene, item), std::vector<int>{}, 1, 1),
        Normalization::symmetric, weight, {}, false, 1);
    set(&field, item);
    crfseg::InferenceOptions options;
    options.iterations = iterations;
    float* out = q.data() + static_cast<std::size_t>(item) * model.of_item();
    field.infer({}, options, {out, model.n_labels, n, n, 1}, nullptr);
  }
  return q;
}

inline std::unique_ptr<cuda::MeanField> device_field(const Model& model, const SetDevice& set) {
  const Scene& scene = model.scene;
  const int side = cuda::Tiling::side_for(scene.dim());
  const auto tiling = cuda::Tiling::of(scene.n_items, scene.n_points(), scene.width, side);
  auto field = std::make_unique<cuda::MeanField>(tiling, model.n_labels, allocate(), nullptr);
  field->add_kernel(std::make_shared<cuda::Lattice>(
                        points_of(scene), options_of(scene.dim(), {}, 1), allocate(), nullptr),
                    Normalization::symmetric, crfseg::lattice_gain(scene.dim(), {}, 1), weight, {},
                    false);
  set(field.get());
  return field;
}

template <class T>
cuda::MarginalView view_of(const Model& model, std::vector<T>* out) {
  return {out->data(), static_cast<std::int64_t>(model.of_item()), model.scene.n_points(), 1};
}

inline std::vector<float> device_marginals(const Model& model, const SetDevice& set,
                                           int iterations) {
  std::vector<float> q(model.of_item() * static_cast<std::size_t>(model.scene.n_items), NAN);
  cuda::FieldOptions options;
  options.iterations = iterations;
  device_field(model, set)->infer({}, options, view_of(model, &q), nullptr);
  return q;
}

inline void check_marginals(const Model& model, const SetCpu& cpu, const SetDevice& device) {
  for (const int iterations : {0, 3}) {
    CHECK(check::largest_difference(cpu_marginals(model, cpu, iterations),
                                    device_marginals(model, device, iterations)) < 1e-5);
  }
}

}  // namespace twins
