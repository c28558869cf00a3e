// SPDX-License-Identifier: MIT
// Mean field on a device equals the CPU's: every compatibility, normalisation and option.
#include "cuda/mean_field.h"

#include <limits>

#include "emulation.h"
#include "mean_field.h"
#include "twins.h"

namespace {

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

cuda::BatchView<const float> view_of(const Model& model, const std::vector<float>& values) {
  if (values.empty()) return {};
  return {values.data(), model.of_item(), model.scene().n_points(), 1};
}

LabelView<const float> item_of(const Model& model, const std::vector<float>& values,
                               std::int64_t item) {
  return {values.data() + item * model.of_item(), model.n_labels, model.scene().n_points(),
          model.scene().n_points(), 1};
}

std::unique_ptr<crfseg::MeanField> cpu_field(const Model& model, std::int64_t item) {
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

Found on_cpu(const Model& model, const cuda::FieldOptions& options,
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

std::unique_ptr<cuda::MeanField> device_field(const Model& model) {
  int side = 16;
  for (const Kernel& kernel : model.kernels) {
    side = std::min(side, cuda::Tiling::side_for(kernel.scene.dim()));
  }
  const Scene& scene = model.scene();
  const cuda::Tiling tiling = cuda::Tiling::of(scene.n_items, scene.n_points(), scene.width, side);
  auto field =
      std::make_unique<cuda::MeanField>(tiling, model.n_labels, twins::allocate(), nullptr);
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

Found on_device(const Model& model, const cuda::FieldOptions& options,
                const std::vector<float>& start) {
  Found found;
  found.q.assign(model.unary.size(), NAN);
  found.labels.assign(static_cast<std::size_t>(model.scene().n_items * model.scene().n_points()),
                      -1);
  const auto field = device_field(model);
  field->infer(view_of(model, start), options,
               {found.q.data(), model.of_item(), model.scene().n_points(), 1}, found.labels.data());
  const cuda::Outcome outcome = field->outcome();
  found.iterations = outcome.iterations;
  found.max_change = outcome.max_change;
  found.trace = outcome.trace;
  return found;
}

std::vector<float> probabilities(std::int64_t n_items, int n_labels, std::int64_t n_points) {
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

Kernel positions(const Scene& of, float sigma, float weight) {
  Kernel kernel;
  kernel.scene = twins::scene(of.n_items, of.height, of.width, 0, sigma, 1.0F, 1);
  kernel.weight = weight;
  kernel.is_shared = true;
  return kernel;
}

// The customary two kernels.
Model model_of(const Scene& scene, int n_labels) {
  Model model;
  model.n_labels = n_labels;
  Kernel colours;
  colours.scene = scene;
  colours.weight = 5.0F;
  model.kernels = {colours, positions(scene, 3.0F, 3.0F)};
  model.unary = probabilities(scene.n_items, n_labels, scene.n_points());
  return model;
}

void check_model(const Model& model, const cuda::FieldOptions& options,
                 const std::vector<float>& start = {}) {
  const Found cpu = on_cpu(model, options, start), device = on_device(model, options, start);
  CHECK(check::largest_difference(cpu.q, device.q) < 1e-5);
  std::int64_t differ = 0;
  for (std::size_t i = 0; i < cpu.labels.size(); ++i) {
    differ += cpu.labels[i] != device.labels[i] ? 1 : 0;
  }
  CHECK(differ == 0);
  if (model.scene().n_items > 1) return;  // a batch stops together
  CHECK(cpu.iterations == device.iterations);
  const bool watched = options.tolerance > 0.0F || options.trace;
  CHECK(watched ? std::abs(cpu.max_change - device.max_change) < 1e-5F
                : std::isnan(device.max_change));
  CHECK(cpu.trace.size() == device.trace.size());
  for (std::size_t i = 0; i < std::min(cpu.trace.size(), device.trace.size()); ++i) {
    CHECK(std::abs(cpu.trace[i] - device.trace[i]) < 1e-5 * std::abs(cpu.trace[i]) + 1e-3);
  }
}

void check_options(const Model& model) {
  cuda::FieldOptions options;
  options.iterations = 5;
  check_model(model, options);
  options.iterations = 0;
  check_model(model, options);
  options.iterations = 4;
  options.trace = true;
  check_model(model, options);
  options.trace = false;
  options.damping = 0.4F;
  check_model(model, options);
  const std::vector<float> start =
      probabilities(model.scene().n_items, model.n_labels, model.scene().n_points());
  check_model(model, options, start);
  options = {};
  options.iterations = emulation::is_sanitized() ? 6 : 60;
  options.tolerance = emulation::is_sanitized() ? 0.1F : 0.01F;
  check_model(model, options);
  options.trace = true;
  check_model(model, options);
  // From near the end: nothing but points that are there may count as a change.
  check_model(model, options, on_cpu(model, options, {}).q);
}

void check_energies(const Model& model) {
  const auto cpu = cpu_field(model, 0);
  const auto device = device_field(model);
  const std::vector<float> q = probabilities(1, model.n_labels, model.scene().n_points());
  std::vector<std::int32_t> labels(static_cast<std::size_t>(model.scene().n_points()));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    labels[i] = static_cast<std::int32_t>(i % static_cast<std::size_t>(model.n_labels));
  }
  const auto agree = [](double a, double b) { return std::abs(a - b) < 1e-5 * std::abs(a) + 1e-3; };
  CHECK(agree(cpu->free_energy(item_of(model, q, 0), 1), device->free_energy(view_of(model, q))));
  CHECK(agree(cpu->expected_energy(item_of(model, q, 0), 1),
              device->expected_energy(view_of(model, q))));
  CHECK(agree(cpu->energy(labels.data(), 1), device->energy(labels.data())));
}

Compatibility vector_of(int n_labels) {
  Compatibility mu{Compatibility::Kind::vector, {}};
  for (int a = 0; a < n_labels; ++a) mu.values.push_back(0.5F + 0.3F * static_cast<float>(a));
  return mu;
}

Compatibility matrix_of(int n_labels) {
  Compatibility mu{Compatibility::Kind::matrix, {}};
  check::Random random(23);
  for (int i = 0; i < n_labels * n_labels; ++i) mu.values.push_back(random.uniform(-0.2F, 1.0F));
  return mu;
}

void check_terms(const Scene& scene, const std::vector<Normalization>& modes) {
  for (const bool exclude_self : {false, true}) {
    for (const Normalization mode : modes) {
      Model model = model_of(scene, 5);
      for (Kernel& kernel : model.kernels) {
        kernel.normalization = mode;
        kernel.exclude_self = exclude_self;
        if (mode == Normalization::none) kernel.weight *= 0.02F;
      }
      check_options(model);
      check_energies(model);
      model.kernels[0].compatibility = vector_of(5);
      model.kernels[1].compatibility = matrix_of(5);
      cuda::FieldOptions options;
      options.iterations = 3;
      check_model(model, options);
      check_energies(model);
    }
  }
}

void check_unaries() {
  Model model = model_of(twins::scene(2, 5, 18, 1, 9.0F, 14.0F, 3), 4);
  cuda::FieldOptions options;
  options.iterations = 2;
  check::Random random(5);
  model.kind = UnaryKind::logits;
  model.unary = random.uniforms(static_cast<std::int64_t>(model.unary.size()), -20.0F, 20.0F);
  check_model(model, options);
  model.kind = UnaryKind::energies;
  for (std::size_t i = 0; i < model.unary.size(); i += 7) {
    model.unary[i] = std::numeric_limits<float>::infinity();
  }
  check_model(model, options);
  CHECK(!device_field(model)->findings().is_bad);
  model.unary[40] = NAN;
  CHECK(device_field(model)->findings().is_bad);
  model.kind = UnaryKind::probabilities;
  model.unary = probabilities(2, 4, model.scene().n_points());
  CHECK(device_field(model)->findings().off < 1e-5F);
  model.unary[7] += 0.25F;
  model.unary[9] = -0.125F;
  const cuda::UnaryFindings found = device_field(model)->findings();
  CHECK(found.off >= 0.2F && found.low == -0.125F && !found.is_bad);
}

void check_sizes() {
  cuda::FieldOptions options;
  options.iterations = 3;
  for (const int n_labels : {1, 2, 4, 21, 64, 300}) {
    check_model(model_of(twins::scene(2, 9, 20, 3, 9.0F, 14.0F, 4), n_labels), options);
  }
  check_model(model_of(twins::scene(1, 1, 1, 3, 9.0F, 14.0F, 4), 3), options);
  check_model(model_of(twins::scene(3, 1, 40, 3, 9.0F, 14.0F, 4), 3), options);
  Model deep = model_of(twins::scene(1, 8, 9, 7, 9.0F, 14.0F, 4), 3);
  check_model(deep, options);
  deep.kernels[0].fill = {1, 4};
  deep.kernels[0].scene = twins::scene(1, 8, 9, 1, 9.0F, 14.0F, 4);
  deep.kernels[0].passes = 2;
  deep.kernels[0].exclude_self = true;
  check_options(deep);
  check_energies(deep);
}

// Blocks and threads in other orders give the same bits.
void check_orders(const Model& model) {
  const std::vector<float> in_order = on_device(model, {}, {}).q;
  for (const std::uint64_t seed : {1, 2, 3}) {
    emulation::settings().seed = seed;
    CHECK(on_device(model, {}, {}).q == in_order);
  }
}

}  // namespace

int main() {
  check_unaries();
  if (emulation::is_sanitized()) {
    check_terms(twins::scene(1, 5, 18, 1, 9.0F, 14.0F, 2), {Normalization::symmetric});
    cuda::FieldOptions options;
    options.iterations = 2;
    check_model(model_of(twins::scene(1, 3, 5, 1, 9.0F, 14.0F, 4), 70), options);
    check_orders(model_of(twins::scene(1, 5, 18, 1, 8.0F, 12.0F, 10), 6));
    return check::result();
  }
  check_terms(
      twins::scene(1, 25, 38, 3, 9.0F, 14.0F, 2),
      {Normalization::none, Normalization::before, Normalization::after, Normalization::symmetric});
  check_sizes();
  check_orders(model_of(twins::scene(2, 18, 19, 3, 8.0F, 12.0F, 10), 6));
  return check::result();
}
