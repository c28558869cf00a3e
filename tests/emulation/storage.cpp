// SPDX-License-Identifier: MIT
// Rows that are stored as halves: marginals as the CPU's to 4e-3 where networks' scores lean to one
// label or other (2e-3 found); and finite, whatever is asked. Where scores lean to none and Q tips
// over as a whole, differences grow on the way as any would (0.1 found), to the same end.
#include "cuda/storage.h"

#include <functional>
#include <limits>

#include "emulation.h"
#include "fields.h"

namespace {

using namespace fields;
constexpr cuda::FloatType halves = cuda::FloatType::float16;
constexpr float infinity = std::numeric_limits<float>::infinity();

// Logits that know the label of each block of a scene's colours, and are wrong about one point in
// eight.
Model leaning(const Scene& scene, int n_labels, float range = 3.0F) {
  Model model = model_of(scene, n_labels);
  model.kind = UnaryKind::logits;
  check::Random random(17);
  const std::int64_t n = scene.n_points();
  model.unary = random.uniforms(scene.n_items * model.of_item(), 0.0F, range);
  for (std::int64_t i = 0; i < scene.n_items * n; ++i) {
    const std::int64_t item = i / n, point = i % n;
    const std::int64_t block = (point / scene.width / 7 + point % scene.width / 9 + item) % 4;
    const bool is_wrong = random.bits() % 8 == 0;
    const std::int64_t label = (is_wrong ? std::int64_t(random.bits() >> 8) : block) % n_labels;
    model.unary[std::size_t((item * n_labels + label) * n + point)] += range;
  }
  return model;
}

cuda::FieldOptions steps(int iterations) {
  cuda::FieldOptions options;
  options.iterations = iterations;
  return options;
}

void check_model(const Model& model, const cuda::FieldOptions& options,
                 const std::vector<float>& start = {}) {
  const Found cpu = on_cpu(model, options, start);
  const Found device = on_device(model, options, start, halves);
  CHECK(check::largest_difference(cpu.q, device.q) < 4e-3);  // NaN is not
  std::size_t differ = 0;
  for (std::size_t i = 0; i < cpu.labels.size(); ++i) {
    differ += cpu.labels[i] != device.labels[i] ? 1 : 0;
  }
  CHECK(differ <= cpu.labels.size() / 400);
  CHECK(std::abs(cpu.iterations - device.iterations) <= 1);
  const auto n_points = static_cast<double>(model.scene().n_points());
  const std::size_t n_energies = std::min(cpu.trace.size(), device.trace.size());
  for (std::size_t i = 0; i < n_energies; ++i) {
    CHECK(std::abs(cpu.trace[i] - device.trace[i]) < 1e-3 * (std::abs(cpu.trace[i]) + n_points));
  }
}

void check_options(const Model& model) {
  check_model(model, steps(0));
  check_model(model, steps(5));
  check_model(model, steps(5), on_cpu(model, steps(1), {}).q);
  cuda::FieldOptions options = steps(60);
  options.tolerance = 1e-3F;
  check_model(model, options);
  options.trace = true;
  check_model(model, options);
  options.damping = 0.3F;
  check_model(model, options);
}

void check_energies(const Model& model) {
  const auto cpu = cpu_field(model, 0);
  const auto device = device_field(model, halves);
  const std::vector<float> q = probabilities(1, model.n_labels, model.scene().n_points());
  const auto agree = [](double a, double b) { return std::abs(a - b) < 1e-3 * std::abs(a); };
  CHECK(agree(cpu->free_energy(item_of(model, q, 0), 1), device->free_energy(view_of(model, q))));
  const std::vector<std::int32_t> labels(std::size_t(model.scene().n_points()), 1);
  CHECK(agree(cpu->energy(labels.data(), 1), device->energy(labels.data())));
}

void check_terms(const Scene& scene) {
  for (const bool exclude_self : {false, true}) {
    for (const Normalization mode : {Normalization::none, Normalization::before,
                                     Normalization::after, Normalization::symmetric}) {
      Model model = leaning(scene, 5);
      for (Kernel& kernel : model.kernels) {
        kernel.normalization = mode;
        kernel.exclude_self = exclude_self;
        if (mode == Normalization::none) kernel.weight *= 0.02F;
      }
      check_model(model, steps(5));
      if (mode == Normalization::symmetric) check_options(model);
      check_energies(model);
      model.kernels[0].compatibility = vector_of(5);
      model.kernels[1].compatibility = matrix_of(5);
      check_model(model, steps(5));
    }
  }
}

void check_sizes() {
  for (const int n_labels : {1, 2, 3, 21, 150}) {
    for (const float range : {1.0F, 3.0F, 3e5F}) {
      check_model(leaning(twins::scene(2, 18, 32, 3, 30.0F, 14.0F, 4), n_labels, range), steps(6));
    }
  }
  Model deep = leaning(twins::scene(1, 8, 9, 7, 9.0F, 14.0F, 4), 3);
  check_model(deep, steps(3));
  deep.kernels[0].fill = {1, 4};
  deep.kernels[0].scene = twins::scene(1, 8, 9, 1, 9.0F, 14.0F, 4);
  deep.kernels[0].passes = 2;
  check_options(deep);
}

// One vertex has nearly all of the mass, and of one label more than a half can count; a few points
// have vertices that nobody else touches.
void check_heavy(std::int64_t side, const std::vector<Normalization>& modes) {
  Scene scene = twins::scene(1, side, side, 3, 1e4F, 20.0F, 1);
  std::fill(scene.channels.begin(), scene.channels.end(), std::uint8_t{0});
  for (const std::int64_t odd : {std::int64_t{0}, side, side * side - 1}) {
    scene.channels[std::size_t(3 * odd)] = 250;
  }
  for (const Normalization mode : modes) {
    Model model = leaning(scene, 3);
    for (std::int64_t i = 10 * side; i < side * side; ++i) model.unary[std::size_t(i)] += 9.0F;
    model.kernels.resize(1);
    model.kernels[0].normalization = mode;
    if (mode == Normalization::none) {
      const double mass = crfseg::lattice_gain(5, {}, 1) * static_cast<double>(scene.n_points());
      model.kernels[0].weight = static_cast<float>(2.0 / mass);
    }
    check_model(model, steps(2));
  }
}

// Labels that are forbidden, or as good as that; and all labels of a point, which is reported.
void check_forbidden() {
  Model model = leaning(twins::scene(1, 24, 32, 3, 30.0F, 14.0F, 4), 4);
  model.kind = UnaryKind::energies;
  for (float& energy : model.unary) energy = -energy;
  const std::size_t n = model.unary.size() / 4;
  for (std::size_t i = 0; i < n; i += 7) model.unary[2 * n + i] = infinity;
  for (std::size_t i = 3; i < n; i += 7) model.unary[n + i] = 3.4e38F;
  check_options(model);
  const Found found = on_device(model, steps(5), {}, halves);
  for (std::size_t i = 0; i < n; i += 7) CHECK(found.q[2 * n + i] == 0.0F);
  for (std::size_t i = 3; i < n; i += 7) CHECK(found.q[n + i] == 0.0F);
  for (std::size_t label = 0; label < 4; ++label) model.unary[label * n] = infinity;
  CHECK(device_field(model, halves)->findings().is_bad);
  for (const float q : on_device(model, steps(5), {}, halves).q) CHECK(q >= 0.0F && q <= 1.0F);
}

// Weights of any size, and Q that is none.
void check_extremes() {
  Model model = leaning(twins::scene(1, 24, 32, 3, 30.0F, 14.0F, 4), 5);
  model.kernels[0].compatibility = matrix_of(5);
  for (const float weight : {1e-12F, 1e8F}) {
    model.kernels[0].weight = weight;
    check_model(model, steps(2));
  }
  model.kernels[0].weight = 1e30F;
  const std::vector<float> start(model.unary.size(), 1e9F);
  for (const float q : on_device(model, steps(3), start, halves).q) CHECK(q >= 0.0F && q <= 1.0F);
}

// Whatever unaries are read from, and held where structures are thin.
void check_sources() {
  const Model model = leaning(twins::scene(1, 24, 32, 3, 30.0F, 14.0F, 4), 5);
  const std::vector<float> scores = check::Random(2).uniforms(5 * 6 * 8, -4.0F, 4.0F);
  std::vector<std::int32_t> labels(24 * 32);
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = std::int32_t(i / 50 % 7) - 1;
  const std::vector<std::function<void(cuda::MeanField*)>> sources{
      [&](cuda::MeanField* field) {
        const crfseg::CoarseGrid grid{6, 8, 24, 32, false};
        field->set_coarse_unary(cuda::BatchView<const float>{scores.data(), 0, 48, 1}, grid,
                                UnaryKind::logits, 1e-6F);
      },
      [&](cuda::MeanField* field) { field->set_labels(labels.data(), {0.3F, 3.0F, 1.6F, 1}); },
      [&](cuda::MeanField* field) { field->hold_thin(3, 8.0F); }};
  for (const auto& set : sources) {
    const auto found = [&](cuda::FloatType storage) {
      std::vector<float> q(model.unary.size(), NAN);
      const auto field = device_field(model, storage);
      set(field.get());
      field->infer({}, steps(5), {q.data(), 0, 24 * 32, 1}, nullptr);
      return q;
    };
    CHECK(check::largest_difference(found(cuda::FloatType::float32), found(halves)) < 4e-3);
  }
}

void check_refusals() {
  const Model model = leaning(twins::scene(1, 8, 9, 3, 9.0F, 14.0F, 4), 3);
  const std::vector<std::int32_t> labels(72, 1);
  const auto field = device_field(model, halves);
  CHECK_THROWS(field->set_labels(labels.data(), {20.0F, 30.0F, 1.0F, -1}), crfseg::Error);
  field->set_labels(labels.data(), {0.0F, 1e9F, 50.0F, -1});
  CHECK_THROWS(device_field(model, cuda::FloatType::bfloat16), crfseg::Error);
  const auto unit = [&](std::int64_t n_points, Normalization mode) {
    cuda::LatticeView view;
    view.dim = 5;
    view.tiling.n_points = n_points;
    return cuda::row_unit(view, 1, mode, 1.0F).value;
  };
  CHECK(unit(std::int64_t{1} << 30, Normalization::none) == 65536.0F);
  CHECK(unit(std::int64_t{1} << 30, Normalization::symmetric) == 16.0F);
  CHECK(unit(1, Normalization::after) == 1.0F / 16384.0F);
  CHECK_THROWS(unit(std::int64_t{1} << 30, Normalization::after), crfseg::Error);
}

// Blocks and threads in other orders give the same bits; and rows take half of the room.
void check_orders(const Model& model) {
  const std::vector<float> in_order = on_device(model, {}, {}, halves).q;
  for (const std::uint64_t seed : {1, 2, 3}) {
    emulation::settings().seed = seed;
    CHECK(on_device(model, {}, {}, halves).q == in_order);
  }
  emulation::settings().seed = 0;
  CHECK(device_field(model, halves)->nbytes() < 0.6 * double(device_field(model)->nbytes()));
}

}  // namespace

int main() {
  check_forbidden();
  check_sources();
  check_refusals();
  check_orders(leaning(twins::scene(2, 18, 19, 3, 8.0F, 12.0F, 10), 6));
  if (emulation::is_sanitized()) {
    check_heavy(40, {Normalization::after});
    return check::result();
  }
  check_extremes();
  check_terms(twins::scene(1, 25, 38, 3, 9.0F, 14.0F, 2));
  check_sizes();
  check_heavy(60, {Normalization::before, Normalization::symmetric});
  check_heavy(300, {Normalization::none, Normalization::after});
  return check::result();
}
