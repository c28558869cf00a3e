// SPDX-License-Identifier: MIT
// The differentiated mean field on a device equals the CPU's, for every option; and on a small case
// the difference quotients of the equations themselves, in double.
#include "cuda/gradients.h"

#include <numeric>

#include "emulation.h"
#include "gradients.h"
#include "twins.h"

namespace {

namespace cuda = twins::cuda;
using crfseg::FeatureGradient;
using crfseg::LabelView;
using crfseg::Normalization;

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

struct Kernel {
  int dim = 2;
  bool is_shared = false;  // one lattice for all items
  Floats features;         // (n_items or 1, n_points, dim)
  Normalization normalization = Normalization::symmetric;
  bool is_full = false;
  Floats coupling;
  std::vector<int> fill;
  int passes = 1;

  double gain() const { return crfseg::lattice_gain(dim, fill, passes); }
};

struct Problem {
  std::int64_t n_items = 1, width = 0, n_points = 1;
  int n_labels = 3;
  std::vector<Kernel> kernels;
  Floats unary, gradient;  // (n_items, n_labels, n_points)
  bool is_energy = false;

  std::int64_t of_item() const { return n_labels * n_points; }
};

struct Asked {
  cuda::UnrollOptions run;
  FeatureGradient form = FeatureGradient::exact;
  bool probes = true;
  bool by_point = false;  // points, then labels
};

struct Found {
  Floats out, unary;
  std::vector<Floats> features;
  std::vector<Doubles> couplings;
  Doubles probes;
  int iterations = 0, terms = 0;
  float max_change = 0.0F;
  bool converged = true;
};

// Points of an image of the width, or in a row, with noise as their colours.
Kernel kernel_of(const Problem& problem, int dim, bool is_shared, std::uint64_t seed) {
  Kernel kernel;
  kernel.dim = dim;
  kernel.is_shared = is_shared;
  check::Random random(seed);
  const std::int64_t width = problem.width > 0 ? problem.width : 12;
  for (std::int64_t i = 0; i < (is_shared ? 1 : problem.n_items) * problem.n_points; ++i) {
    const std::int64_t p = i % problem.n_points;
    const float block = static_cast<float>((p / width / 5 + p % width / 6) % 3);
    for (int axis = 0; axis < dim; ++axis) {
      const std::int64_t place = axis == 0 ? p % width : p / width;
      kernel.features.push_back(axis < 2 ? 0.2F * static_cast<float>(place)
                                         : block + random.uniform(0.0F, 0.5F));
    }
  }
  return kernel;
}

void couple(Kernel* kernel, int n_labels, bool is_full, std::uint64_t seed) {
  check::Random random(seed);
  kernel->is_full = is_full;
  kernel->coupling = random.uniforms(is_full ? n_labels * n_labels : n_labels, -0.2F, 0.6F);
}

Problem problem_of(std::int64_t n_items, std::int64_t height, std::int64_t width, int n_labels) {
  Problem problem;
  problem.n_items = n_items;
  problem.width = width;
  problem.n_points = height * width;
  problem.n_labels = n_labels;
  check::Random random(5);
  problem.unary = random.uniforms(n_items * problem.of_item(), -2.0F, 2.0F);
  problem.gradient = random.uniforms(n_items * problem.of_item(), -1.0F, 1.0F);
  problem.kernels = {kernel_of(problem, 2, true, 1), kernel_of(problem, 5, false, 2)};
  couple(&problem.kernels[0], n_labels, true, 3);
  couple(&problem.kernels[1], n_labels, false, 4);
  return problem;
}

Kernel widened(Kernel kernel) {
  for (float& feature : kernel.features) feature *= 1.05F;
  return kernel;
}

std::shared_ptr<crfseg::Lattice> cpu_lattice(const Problem& problem, const Kernel& kernel,
                                             std::int64_t item) {
  const std::int64_t first = kernel.is_shared ? 0 : item * problem.n_points * kernel.dim;
  return std::make_shared<crfseg::Lattice>(kernel.features.data() + first, problem.n_points,
                                           kernel.dim, kernel.fill, kernel.passes, 1);
}

std::shared_ptr<cuda::Lattice> device_lattice(const Problem& problem, const Kernel& kernel,
                                              int side) {
  cuda::Points points;
  points.n_items = kernel.is_shared ? 1 : problem.n_items;
  points.n_points = problem.n_points;
  points.dim = kernel.dim;
  points.features = kernel.features.data();
  points.width = problem.width;
  for (int axis = 0; axis < kernel.dim; ++axis) {
    points.lo[axis] = points.hi[axis] = kernel.features[static_cast<std::size_t>(axis)];
  }
  for (std::size_t i = 0; i < kernel.features.size(); ++i) {
    const std::size_t axis = i % static_cast<std::size_t>(kernel.dim);
    points.lo[axis] = std::min(points.lo[axis], kernel.features[i]);
    points.hi[axis] = std::max(points.hi[axis], kernel.features[i]);
  }
  cuda::BuildOptions options = twins::options_of(kernel.dim, kernel.fill, kernel.passes);
  options.side = side;
  auto lattice = std::make_shared<cuda::Lattice>(points, options, twins::allocate(), nullptr);
  if (!kernel.is_shared) return lattice;
  return std::make_shared<cuda::Lattice>(lattice->repeated(problem.n_items));
}

Found empty(const Problem& problem) {
  Found found;
  found.out.assign(problem.unary.size(), NAN);
  found.unary.assign(problem.unary.size(), NAN);
  for (const Kernel& kernel : problem.kernels) {
    found.features.emplace_back(kernel.features.size(), NAN);
    found.couplings.emplace_back(kernel.coupling.size(), NAN);
  }
  return found;
}

template <class T>
LabelView<T> item_of(const Problem& problem, bool by_point, T* data, std::int64_t item) {
  T* first = data + item * problem.of_item();
  if (by_point) return {first, problem.n_labels, problem.n_points, 1, problem.n_labels};
  return {first, problem.n_labels, problem.n_points, problem.n_points, 1};
}

template <class T>
cuda::BatchView<T> view_of(const Problem& problem, bool by_point, T* data) {
  if (by_point) return {data, problem.of_item(), 1, problem.n_labels};
  return {data, problem.of_item(), problem.n_points, 1};
}

void add_to(Doubles* sums, const Doubles& values) {
  for (std::size_t i = 0; i < values.size(); ++i) (*sums)[i] += values[i];
}

// One item; what is summed over items is added.
void add_cpu_item(const Problem& problem, const Asked& asked, std::int64_t item, Found* found) {
  std::vector<crfseg::CoupledKernel> kernels;
  crfseg::BackOptions back;
  std::vector<Floats> features;
  for (const Kernel& kernel : problem.kernels) {
    kernels.push_back({cpu_lattice(problem, kernel, item),
                       kernel.normalization,
                       {kernel.is_full, kernel.coupling}});
    features.emplace_back(static_cast<std::size_t>(problem.n_points * kernel.dim));
  }
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    const Kernel& kernel = problem.kernels[k];
    const std::int64_t first = kernel.is_shared ? 0 : item * problem.n_points * kernel.dim;
    back.features.push_back({kernel.features.data() + first, asked.form, features[k].data()});
    if (asked.probes) {
      back.probes.push_back({static_cast<int>(k), cpu_lattice(problem, widened(kernel), item)});
    }
  }
  crfseg::UnrolledField field(problem.n_points, problem.n_labels, kernels, 1);
  crfseg::UnrollOptions run;
  run.iterations = asked.run.iterations;
  run.differentiated = asked.run.differentiated;
  run.every = asked.run.every;
  run.fixed_point = asked.run.fixed_point;
  run.tolerance = asked.run.tolerance;
  run.wants_logits = asked.run.wants_logits;
  const crfseg::Unrolling unrolling =
      field.run(item_of(problem, asked.by_point, problem.unary.data(), item), problem.is_energy,
                run, item_of(problem, asked.by_point, found->out.data(), item));
  const crfseg::Gradients gradients =
      field.back(item_of(problem, asked.by_point, problem.gradient.data(), item), back,
                 item_of(problem, asked.by_point, found->unary.data(), item));
  found->iterations = unrolling.iterations;
  found->max_change = unrolling.max_change;
  found->terms = gradients.terms;
  found->converged = found->converged && gradients.converged;
  add_to(&found->probes, gradients.probes);
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    add_to(&found->couplings[k], gradients.couplings[k]);
    float* to = found->features[k].data();
    if (!problem.kernels[k].is_shared) to += item * static_cast<std::int64_t>(features[k].size());
    for (std::size_t i = 0; i < features[k].size(); ++i) to[i] += features[k][i];
  }
}

Found on_cpu(const Problem& problem, const Asked& asked) {
  Found found = empty(problem);
  found.probes.assign(asked.probes ? problem.kernels.size() : 0, 0.0);
  for (std::size_t k = 0; k < problem.kernels.size(); ++k) {
    std::fill(found.features[k].begin(), found.features[k].end(), 0.0F);
    std::fill(found.couplings[k].begin(), found.couplings[k].end(), 0.0);
  }
  for (std::int64_t item = 0; item < problem.n_items; ++item) {
    add_cpu_item(problem, asked, item, &found);
  }
  return found;
}

struct DeviceField {
  DeviceField(const Problem& problem, bool with_probes) {
    int side = 16;
    for (const Kernel& kernel : problem.kernels) {
      side = std::min(side, cuda::Tiling::side_for(kernel.dim));
    }
    std::vector<cuda::CoupledKernel> kernels;
    for (const Kernel& kernel : problem.kernels) {
      kernels.push_back({device_lattice(problem, kernel, side), kernel.normalization, kernel.gain(),
                         kernel.is_full, kernel.coupling.data()});
      if (!with_probes) continue;
      cuda::Probe probe;
      probe.kernel = static_cast<int>(probes.size());
      probe.lattice = device_lattice(problem, widened(kernel), side);
      probe.gain = kernel.gain();
      probes.push_back(probe);
    }
    const cuda::Tiling tiling =
        cuda::Tiling::of(problem.n_items, problem.n_points, problem.width, side);
    field = std::make_unique<cuda::UnrolledField>(tiling, problem.n_labels, kernels,
                                                  twins::allocate(), nullptr);
  }
  std::unique_ptr<cuda::UnrolledField> field;
  std::vector<cuda::Probe> probes;
};

void go_back(const Problem& problem, const Asked& asked, DeviceField* device, Found* found) {
  cuda::BackOptions back;
  found->probes.assign(device->probes.size(), NAN);
  back.probes = device->probes;
  for (std::size_t i = 0; i < back.probes.size(); ++i) back.probes[i].out = &found->probes[i];
  for (std::size_t k = 0; k < problem.kernels.size(); ++k) {
    back.features.push_back(
        {problem.kernels[k].features.data(), asked.form, found->features[k].data()});
    back.couplings.push_back(found->couplings[k].data());
  }
  device->field->back(view_of(problem, asked.by_point, problem.gradient.data()), back,
                      view_of(problem, asked.by_point, found->unary.data()));
  found->terms = device->field->series().terms;
  found->converged = device->field->series().converged;
}

Found on_device(const Problem& problem, const Asked& asked) {
  Found found = empty(problem);
  DeviceField device(problem, asked.probes);
  device.field->run(view_of(problem, asked.by_point, problem.unary.data()), problem.is_energy,
                    asked.run, view_of(problem, asked.by_point, found.out.data()));
  found.iterations = device.field->unrolling().iterations;
  found.max_change = device.field->unrolling().max_change;
  go_back(problem, asked, &device, &found);
  return found;
}

bool same(const Found& a, const Found& b) {
  return a.out == b.out && a.unary == b.unary && a.features == b.features &&
         a.couplings == b.couplings && a.probes == b.probes && a.terms == b.terms &&
         a.iterations == b.iterations;
}

// Largest difference, as a share of the largest value; what is nothing may differ from nothing.
template <class A, class B>
double off(const A& found, const B& expected) {
  double largest = 1e-3, difference = 0.0;
  if (found.size() != expected.size()) return INFINITY;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double d = std::abs(double(found[i]) - double(expected[i]));
    largest = std::max(largest, std::abs(double(expected[i])));
    if (!(d <= difference)) difference = d;
  }
  return difference / largest;
}

void check_problem(const Problem& problem, const Asked& asked) {
  constexpr double tolerance = 1e-5, of_features = 5e-5;  // features': a small difference of sums
  const Found cpu = on_cpu(problem, asked), device = on_device(problem, asked);
  CHECK(off(device.out, cpu.out) < tolerance);
  CHECK(off(device.unary, cpu.unary) < tolerance);
  CHECK(off(device.probes, cpu.probes) < tolerance);
  for (std::size_t k = 0; k < problem.kernels.size(); ++k) {
    CHECK(off(device.couplings[k], cpu.couplings[k]) < tolerance);
    if (asked.form == FeatureGradient::none) continue;
    CHECK(off(device.features[k], cpu.features[k]) < of_features);
  }
  CHECK(device.converged == cpu.converged);
  if (problem.n_items > 1) return;  // a batch stops together
  CHECK(device.iterations == cpu.iterations);
  CHECK(device.terms == cpu.terms);
}

constexpr Normalization all_modes[] = {Normalization::none, Normalization::before,
                                       Normalization::after, Normalization::symmetric};
constexpr FeatureGradient both_forms[] = {FeatureGradient::exact, FeatureGradient::smooth};

Asked steps(int iterations, int differentiated, int every, bool wants_logits) {
  Asked asked;
  asked.run.iterations = iterations;
  asked.run.differentiated = differentiated;
  asked.run.every = every;
  asked.run.wants_logits = wants_logits;
  return asked;
}

void check_modes() {
  for (const Normalization mode : all_modes) {
    for (const bool swaps : {false, true}) {
      Problem problem = problem_of(2, 13, 19, 5);
      if (swaps) std::swap(problem.kernels[0], problem.kernels[1]);
      couple(&problem.kernels[0], 5, swaps, 3);
      for (Kernel& kernel : problem.kernels) {
        kernel.normalization = mode;
        // Sums over many neighbours: no label is to be certain.
        for (float& m : kernel.coupling) m *= mode == Normalization::none ? 0.1F : 1.0F;
      }
      Asked asked = steps(3, 3, 1, swaps);
      for (const FeatureGradient form : both_forms) {
        asked.form = form;
        check_problem(problem, asked);
      }
    }
  }
}

void check_steps() {
  const Problem problem = problem_of(2, 9, 14, 4);
  for (const bool wants_logits : {false, true}) {
    for (const auto& [n, last] : {std::pair<int, int>{0, 0}, {1, 1}, {4, 0}, {4, 2}, {5, 5}}) {
      for (const int every : {1, 3}) {
        Asked asked = steps(n, last, every, wants_logits);
        check_problem(problem, asked);
        asked.form = FeatureGradient::none;
        asked.probes = false;
        asked.by_point = true;
        check_problem(problem, asked);
      }
    }
  }
  Problem energies = problem;
  energies.is_energy = true;
  check_problem(energies, steps(2, 2, 1, true));
}

void check_sizes() {
  for (const int n_labels : {1, 2, 21, 64, 100}) {
    check_problem(problem_of(1, 5, 17, n_labels), steps(2, 2, 1, false));
  }
  Asked asked = steps(1, 1, 1, true);
  asked.form = FeatureGradient::none;
  asked.probes = false;
  check_problem(problem_of(1, 3, 4, 1024), asked);
  check_problem(problem_of(1, 1, 1, 3), steps(2, 2, 1, false));
  check_problem(problem_of(3, 1, 40, 3), steps(2, 2, 1, false));
  // Enough vertices for several parts, and of several runs.
  check_problem(problem_of(1, 100, 90, 3), steps(1, 1, 1, true));
}

// Points in a row, of many dimensions; filled, and with two passes.
void check_lattices() {
  Problem problem = problem_of(2, 1, 70, 3);
  problem.width = 0;
  for (const int dim : {1, 3, 8, 16}) {
    problem.kernels = {kernel_of(problem, dim, dim == 3, 7)};
    couple(&problem.kernels[0], 3, dim == 8, 3);
    for (const FeatureGradient form : both_forms) {
      Asked asked = steps(2, 2, 1, false);
      asked.form = form;
      check_problem(problem, asked);
    }
  }
  problem.kernels = {kernel_of(problem, 3, false, 7)};
  couple(&problem.kernels[0], 3, true, 3);
  problem.kernels[0].fill = {1, 4};
  problem.kernels[0].passes = 2;
  check_problem(problem, steps(2, 2, 1, false));
  problem.kernels.clear();
  check_problem(problem, steps(2, 2, 1, false));
}

void check_fixed_points() {
  Asked asked = steps(60, 60, 1, false);
  asked.run.fixed_point = true;
  for (const bool wants_logits : {false, true}) {
    asked.run.wants_logits = wants_logits;
    asked.run.tolerance = 1e-4F;
    for (const FeatureGradient form : both_forms) {
      asked.form = form;
      check_problem(problem_of(1, 11, 13, 4), asked);
    }
    asked.run.tolerance = 0.0F;
    check_problem(problem_of(3, 8, 9, 3), asked);
  }
  asked.run.iterations = 3;  // too few
  asked.run.tolerance = 1e-6F;
  check_problem(problem_of(1, 11, 13, 4), asked);
}

// An item whose gradient ends nowhere does not keep the others from their end.
void check_endless_items() {
  Problem problem = problem_of(2, 8, 9, 3);
  Asked asked = steps(60, 60, 1, false);
  asked.run.fixed_point = true;
  asked.run.tolerance = 1e-6F;
  const Found clean = on_device(problem, asked);
  problem.gradient[7] = NAN;
  const Found found = on_device(problem, asked);
  CHECK(clean.converged && !found.converged);
  CHECK(found.terms <= clean.terms);
  const auto middle = static_cast<std::ptrdiff_t>(problem.of_item());
  CHECK(off(Floats(found.unary.begin() + middle, found.unary.end()),
            Floats(clean.unary.begin() + middle, clean.unary.end())) < 1e-5);
}

void check_order_of_threads() {
  const Problem problem = problem_of(2, 18, 19, 6);
  for (const FeatureGradient form : both_forms) {
    Asked asked = steps(3, 3, 2, false);
    asked.form = form;
    const Found in_order = on_device(problem, asked);
    for (const std::uint64_t seed : {1, 2}) {
      emulation::settings().seed = seed;
      CHECK(same(on_device(problem, asked), in_order));
      emulation::settings().seed = 0;
    }
    // What is found again is found as it was.
    asked.run.every = 1;
    CHECK(same(on_device(problem, asked), in_order));
  }
}

void check_findings() {
  Problem problem = problem_of(2, 5, 7, 3);
  const DeviceField device(problem, false);
  Floats out(problem.unary.size());
  for (const bool is_bad : {false, true}) {
    if (is_bad) problem.unary.back() = -INFINITY;
    const Floats& unary = problem.unary;
    device.field->run(view_of(problem, false, unary.data()), false, {},
                      view_of(problem, false, out.data()));
    CHECK(device.field->is_finite() != is_bad);
  }
}

void check_going_back_twice() {
  const Problem problem = problem_of(1, 9, 9, 3);
  for (const bool is_fixed : {false, true}) {
    Asked asked = steps(4, 4, 2, false);
    asked.run.fixed_point = is_fixed;
    DeviceField device(problem, false);
    Found first = empty(problem), second = empty(problem);
    CHECK_THROWS(go_back(problem, asked, &device, &first), crfseg::Error);
    device.field->run(view_of(problem, false, problem.unary.data()), false, asked.run,
                      view_of(problem, false, first.out.data()));
    second.out = first.out;
    go_back(problem, asked, &device, &first);
    go_back(problem, asked, &device, &second);
    CHECK(same(first, second));
  }
}

// The equations in double, over filters that are matrices.
struct Dense {
  const Problem& problem;
  std::vector<Doubles> filters;  // (n_points, n_points)

  explicit Dense(const Problem& of) : problem(of) {
    const std::int64_t n = of.n_points;
    Floats unit(static_cast<std::size_t>(n * n), 0.0F), out(unit.size());
    for (std::int64_t p = 0; p < n; ++p) unit[static_cast<std::size_t>(p * n + p)] = 1.0F;
    for (const Kernel& kernel : of.kernels) {
      cuda::lattice_filter(*device_lattice(of, kernel, 16), kernel.normalization, kernel.gain(),
                           false, unit.data(), n, out.data(), twins::allocate(), nullptr);
      filters.emplace_back(out.begin(), out.end());
    }
  }

  static void soften(Doubles* z, std::int64_t n) {
    for (std::int64_t p = 0; p < n; ++p) {
      double sum = 0.0;
      const auto at = [&](std::size_t label) -> double& {
        return (*z)[label * static_cast<std::size_t>(n) + static_cast<std::size_t>(p)];
      };
      const std::size_t labels = z->size() / static_cast<std::size_t>(n);
      for (std::size_t a = 0; a < labels; ++a) sum += at(a) = std::exp(at(a));
      for (std::size_t a = 0; a < labels; ++a) at(a) /= sum;
    }
  }

  double loss(const Doubles& x, const std::vector<Doubles>& couplings, int iterations) const {
    const auto n = static_cast<std::size_t>(problem.n_points);
    const auto labels = static_cast<std::size_t>(problem.n_labels);
    Doubles q = x;
    soften(&q, problem.n_points);
    for (int t = 0; t < iterations; ++t) {
      Doubles z = x;
      for (std::size_t k = 0; k < filters.size(); ++k) {
        for (std::size_t i = 0; i < n * n * labels; ++i) {
          const std::size_t b = i / (n * n), p = i / n % n, j = i % n;
          const double message = filters[k][p * n + j] * q[b * n + j];
          for (std::size_t a = 0; a < labels; ++a) {
            const bool is_full = problem.kernels[k].is_full;
            if (is_full || a == b)
              z[a * n + p] += couplings[k][is_full ? a * labels + b : a] * message;
          }
        }
      }
      q = z;
      soften(&q, problem.n_points);
    }
    double sum = 0.0;
    for (std::size_t i = 0; i < q.size(); ++i) sum += q[i] * double(problem.gradient[i]);
    return sum;
  }
};

void check_difference_quotients() {
  const Problem problem = problem_of(1, 4, 6, 3);
  const Asked asked = steps(3, 3, 1, false);
  const Found found = on_device(problem, asked);
  const Dense dense(problem);
  Doubles x(problem.unary.begin(), problem.unary.end());
  std::vector<Doubles> couplings;
  for (const Kernel& kernel : problem.kernels) {
    couplings.emplace_back(kernel.coupling.begin(), kernel.coupling.end());
  }
  const auto quotient = [&](double* value) {
    const double before = *value, step = 1e-4;
    *value = before + step;
    const double above = dense.loss(x, couplings, 3);
    *value = before - step;
    const double below = dense.loss(x, couplings, 3);
    *value = before;
    return (above - below) / (2.0 * step);
  };
  Doubles by_unary;
  for (double& value : x) by_unary.push_back(quotient(&value));
  CHECK(off(found.unary, by_unary) < 2e-6);
  for (std::size_t k = 0; k < couplings.size(); ++k) {
    Doubles by_coupling;
    for (double& value : couplings[k]) by_coupling.push_back(quotient(&value));
    CHECK(off(found.couplings[k], by_coupling) < 2e-6);
  }
}

}  // namespace

int main() {
  check_difference_quotients();
  check_modes();
  check_steps();
  check_sizes();
  check_lattices();
  check_fixed_points();
  check_endless_items();
  check_order_of_threads();
  check_findings();
  check_going_back_twice();
  return check::result();
}
