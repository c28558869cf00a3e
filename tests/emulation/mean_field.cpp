// SPDX-License-Identifier: MIT
// Mean field on a device equals the CPU's: every compatibility, normalisation and option.
#include <limits>

#include "emulation.h"
#include "fields.h"

namespace {

using namespace fields;

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
