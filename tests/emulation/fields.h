// SPDX-License-Identifier: MIT
// Mean fields of both twins: every compatibility, normalisation and option.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "cuda/mean_field.h"
#include "mean_field.h"
#include "twins.h"

namespace fields {

namespace cuda = twins::cuda;
using crfseg::Compatibility;
using crfseg::LabelView;
using crfseg::Normalization;
using crfseg::UnaryKind;
using twins::Scene;

struct Kernel {
  Scene scene;
  Normalization normalization = Normalization::symmetric;
  float weight = 1.0F;
  Compatibility compatibility;
  bool exclude_self = false;
  std::vector<int> fill;
  int passes = 1;
  bool is_shared = false;  // one lattice for all items
};

struct Model {
  int n_labels = 3;
  std::vector<Kernel> kernels;
  std::vector<float> unary;  // (n_items, n_labels, n_points)
  UnaryKind kind = UnaryKind::probabilities;

  const Scene& scene() const { return kernels.front().scene; }
  std::int64_t of_item() const { return n_labels * scene().n_points(); }
};

struct Found {
  std::vector<float> q;
  std::vector<std::int32_t> labels;
  int iterations = 0;
  float max_change = 0.0F;
  std::vector<double> trace;
};

inline cuda::BatchView<const float> view_of(const Model& model, const std::vector<float>& values) {
  if (values.empty()) return {};
  return {values.data(), model.of_item(), model.scene().n_points(), 1};
}

inline LabelView<const float> item_of(const Model& model, const std::vector<float>& values,
                                      std::int64_t item) {
  return {values.data() + item * model.of_item(), model.n_labels, model.scene().n_points(),
          model.scene().n_points(), 1};
}

inline std::unique_ptr<crfseg::MeanField> cpu_field(const Model& model, std::int64_t item) {
  auto field = std::make_unique<crfseg::MeanField>(model.scene().n_points(), model.n_labels);
  field->set_unary(item_of(model, model.unary, item), model.kind, 1e-6F, 1);
  for (const Kernel& kernel : model.kernels) {
    field->add_kernel(std::make_shared<crfseg::Lattice>(twins::pixels_of(kernel.scene, item),
                                                        kernel.fill, kernel.passes, 1),
                      kernel.normalization, kernel.weight, kernel.compatibility,
                      kernel.exclude_self, 1);
  }
  return field;
}

inline Found on_cpu(const Model& model, const cuda::FieldOptions& options,
                    const std::vector<float>& start) {
  Found found;
  found.q.resize(model.unary.size());
  found.labels.resize(static_cast<std::size_t>(model.scene().n_items * model.scene().n_points()));
  for (std::int64_t item = 0; item < model.scene().n_items; ++item) {
    crfseg::InferenceOptions asked;
    asked.iterations = options.iterations;
    asked.tolerance = options.tolerance;
    asked.solver.damping = options.damping;
    asked.trace = options.trace;
    const auto field = cpu_field(model, item);
    const LabelView<float> out{found.q.data() + item * model.of_item(), model.n_labels,
                               model.scene().n_points(), model.scene().n_points(), 1};
    const crfseg::Inference inference =
        field->infer(start.empty() ? LabelView<const float>{} : item_of(model, start, item), asked,
                     out, found.labels.data() + item * model.scene().n_points());
    found.iterations = inference.iterations;
    found.max_change = inference.max_change;
    found.trace = inference.trace;
  }
  return found;
}

inline std::unique_ptr<cuda::MeanField> device_field(
    const Model& model, cuda::FloatType storage = cuda::FloatType::float32) {
  int side = 16;
  for (const Kernel& kernel : model.kernels) {
    side = std::min(side, cuda::Tiling::side_for(kernel.scene.dim()));
  }
  const Scene& scene = model.scene();
  const cuda::Tiling tiling = cuda::Tiling::of(scene.n_items, scene.n_points(), scene.width, side);
  auto field = std::make_unique<cuda::MeanField>(tiling, model.n_labels, twins::allocate(), nullptr,
                                                 storage);
  field->set_unary(view_of(model, model.unary), model.kind, 1e-6F);
  for (const Kernel& kernel : model.kernels) {
    cuda::BuildOptions options = twins::options_of(kernel.scene.dim(), kernel.fill, kernel.passes);
    options.side = side;
    cuda::Points points = twins::points_of(kernel.scene);
    if (kernel.is_shared) points.n_items = 1;
    auto lattice = std::make_shared<cuda::Lattice>(points, options, twins::allocate(), nullptr);
    if (kernel.is_shared) {
      lattice = std::make_shared<cuda::Lattice>(lattice->repeated(scene.n_items));
    }
    field->add_kernel(lattice, kernel.normalization,
                      crfseg::lattice_gain(kernel.scene.dim(), kernel.fill, kernel.passes),
                      kernel.weight, kernel.compatibility, kernel.exclude_self);
  }
  return field;
}

inline Found on_device(const Model& model, const cuda::FieldOptions& options,
                       const std::vector<float>& start,
                       cuda::FloatType storage = cuda::FloatType::float32) {
  Found found;
  found.q.assign(model.unary.size(), NAN);
  found.labels.assign(static_cast<std::size_t>(model.scene().n_items * model.scene().n_points()),
                      -1);
  const auto field = device_field(model, storage);
  field->infer(view_of(model, start), options,
               {found.q.data(), model.of_item(), model.scene().n_points(), 1}, found.labels.data());
  const cuda::Outcome outcome = field->outcome();
  found.iterations = outcome.iterations;
  found.max_change = outcome.max_change;
  found.trace = outcome.trace;
  return found;
}

inline std::vector<float> probabilities(std::int64_t n_items, int n_labels, std::int64_t n_points) {
  check::Random random(17);
  std::vector<float> p = random.uniforms(n_items * n_labels * n_points, 0.01F, 1.0F);
  for (std::int64_t item = 0; item < n_items; ++item) {
    for (std::int64_t point = 0; point < n_points; ++point) {
      float* first = p.data() + item * n_labels * n_points + point;
      float sum = 0.0F;
      for (int label = 0; label < n_labels; ++label) sum += first[label * n_points];
      for (int label = 0; label < n_labels; ++label) first[label * n_points] /= sum;
    }
  }
  return p;
}

inline Kernel positions(const Scene& of, float sigma, float weight) {
  Kernel kernel;
  kernel.scene = twins::scene(of.n_items, of.height, of.width, 0, sigma, 1.0F, 1);
  kernel.weight = weight;
  kernel.is_shared = true;
  return kernel;
}

// The customary two kernels.
inline Model model_of(const Scene& scene, int n_labels) {
  Model model;
  model.n_labels = n_labels;
  Kernel colours;
  colours.scene = scene;
  colours.weight = 5.0F;
  model.kernels = {colours, positions(scene, 3.0F, 3.0F)};
  model.unary = probabilities(scene.n_items, n_labels, scene.n_points());
  return model;
}

inline Compatibility vector_of(int n_labels) {
  Compatibility mu{Compatibility::Kind::vector, {}};
  for (int a = 0; a < n_labels; ++a) mu.values.push_back(0.5F + 0.3F * static_cast<float>(a));
  return mu;
}

inline Compatibility matrix_of(int n_labels) {
  Compatibility mu{Compatibility::Kind::matrix, {}};
  check::Random random(23);
  for (int i = 0; i < n_labels * n_labels; ++i) mu.values.push_back(random.uniform(-0.2F, 1.0F));
  return mu;
}

}  // namespace fields
