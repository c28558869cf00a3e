// SPDX-License-Identifier: MIT
// Every solver through the mean field's header: odd sizes, forbidden labels, starts, many threads.
// Values are held to a reference in Python; this is what the sanitizers watch.
#include <limits>
#include <memory>

#include "check.h"
#include "cpu/dispatch.h"
#include "mean_field.h"
#include "solver.h"

using crfseg::Compatibility;
using crfseg::InferenceOptions;
using crfseg::Lattice;
using crfseg::MeanField;
using crfseg::Normalization;
using crfseg::Solver;

namespace {

std::vector<Solver> solvers() {
  std::vector<Solver> all;
  all.push_back({0.5F, false, Solver::Steps::fixed, 1.0F, 1.0F});
  for (bool euclidean : {false, true}) {
    all.push_back({0.0F, euclidean, Solver::Steps::fixed, 1.0F, 1.0F});
    all.push_back({0.0F, euclidean, Solver::Steps::fixed, 0.4F, 0.1F});
    all.push_back({0.0F, euclidean, Solver::Steps::diminishing, 1.0F, 1.0F});
    all.push_back({0.0F, euclidean, Solver::Steps::line_search, 1.0F, 2.0F});
  }
  return all;
}

struct Problem {
  Problem(std::int64_t n_points, int n_labels, Compatibility::Kind kind, bool exclude_self)
      : field(n_points, n_labels),
        random(static_cast<std::uint64_t>(n_points)),
        unary(random.uniforms(n_points * n_labels, -2.0F, 2.0F)) {
    for (std::size_t i = 1; i < unary.size(); i += 7) {  // never a point's only label
      if (n_labels > 7) unary[i] = std::numeric_limits<float>::infinity();
    }
    field.set_unary({unary.data(), n_labels, n_points, n_points, 1}, crfseg::UnaryKind::energies,
                    1e-5F, 2);
    Compatibility mu;
    mu.kind = kind;
    if (kind == Compatibility::Kind::matrix) {
      mu.values = random.uniforms(std::int64_t{n_labels} * n_labels, -1.0F, 1.0F);
    }
    const std::vector<float> features = random.uniforms(n_points * 3, -3.0F, 3.0F);
    const auto lattice =
        std::make_shared<const Lattice>(features.data(), n_points, 3, std::vector<int>{}, 1, 2);
    field.add_kernel(lattice, Normalization::symmetric, 1.5F, mu, exclude_self, 2);
  }

  std::vector<float> infer(const Solver& solver, int threads, bool watch, const float* start) {
    const std::int64_t n = field.n_points();
    const int c = field.n_labels();
    std::vector<float> q(static_cast<std::size_t>(n * c));
    InferenceOptions options;
    options.iterations = 3;
    options.solver = solver;
    options.trace = watch;
    options.tolerance = watch ? 1e-6F : 0.0F;
    options.threads = threads;
    crfseg::LabelView<const float> from;
    if (start != nullptr) from = {start, c, n, n, 1};
    const auto result = field.infer(from, options, {q.data(), c, n, n, 1}, nullptr);
    CHECK(!watch || result.trace.size() == std::size_t(result.iterations) + 1);
    return q;
  }

  MeanField field;
  check::Random random;
  std::vector<float> unary;
};

bool are_distributions(const std::vector<float>& q, std::size_t n_points) {
  for (std::size_t i = 0; i < n_points; ++i) {
    double sum = 0.0;
    for (std::size_t at = i; at < q.size(); at += n_points) {
      if (!(q[at] >= 0.0F && q[at] <= 1.0001F)) return false;
      sum += q[at];
    }
    if (std::abs(sum - 1.0) > 1e-5) return false;
  }
  return true;
}

void every_solver_gives_distributions() {
  using Kind = Compatibility::Kind;
  for (int n_labels : {1, 2, 3, 8, 17, 33}) {
    for (std::int64_t n : {1, 8, 131}) {
      for (Kind kind : {Kind::potts, Kind::matrix}) {
        Problem problem(n, n_labels, kind, kind == Kind::matrix);
        const std::vector<float> start(std::size_t(n * n_labels), 1.0F / float(n_labels));
        for (const Solver& solver : solvers()) {
          for (bool watch : {false, true}) {
            const float* from = watch ? start.data() : nullptr;
            CHECK(are_distributions(problem.infer(solver, 3, watch, from), std::size_t(n)));
          }
        }
      }
    }
  }
}

void threads_change_no_bit() {
  Problem problem(9000, 5, Compatibility::Kind::matrix, true);
  for (const Solver& solver : solvers()) {
    CHECK(problem.infer(solver, 1, true, nullptr) == problem.infer(solver, 5, true, nullptr));
  }
}

void a_field_without_kernels_is_solved() {
  const std::vector<float> unary{0.0F, 1.0F, 2.0F, 0.5F, 0.25F, 0.0F};
  MeanField field(2, 3);
  field.set_unary({unary.data(), 3, 2, 2, 1}, crfseg::UnaryKind::energies, 1e-5F, 1);
  for (const Solver& solver : solvers()) {
    InferenceOptions options;
    options.solver = solver;
    std::vector<float> q(6);
    field.infer({}, options, {q.data(), 3, 2, 2, 1}, nullptr);
    CHECK(are_distributions(q, 2));
  }
}

}  // namespace

int main() {
  for (const std::string& isa : crfseg::available_isas()) {
    crfseg::set_isa(isa);
    every_solver_gives_distributions();
  }
  threads_change_no_bit();
  a_field_without_kernels_is_solved();
  return check::result();
}
