// SPDX-License-Identifier: MIT
// The differentiated mean field on a device equals the CPU's, for every option; and on a small case
// the difference quotients of the equations themselves, in double.
#include "coupled.h"
#include "cuda/filter.h"
#include "emulation.h"

namespace {

using namespace coupled;

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
  problem.kernels[0].has_room = true;
  check_problem(problem, steps(2, 2, 1, false));
  problem.kernels[0].has_room = false;
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

// As much as real threads do in a few seconds.
void check_small() {
  Problem problem = problem_of(2, 5, 7, 3);
  couple(&problem.kernels[0], 3, true, 3);
  for (const FeatureGradient form : both_forms) {
    Asked asked = steps(2, 2, 2, false);
    asked.form = form;
    check_problem(problem, asked);
    asked.run.fixed_point = true;
    check_problem(problem, asked);
  }
  check_problem(problem_of(1, 3, 5, 70), steps(1, 1, 1, true));
}

}  // namespace

int main() {
  if (emulation::is_sanitized()) {
    check_small();
    check_findings();
    return check::result();
  }
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
