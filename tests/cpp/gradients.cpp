// SPDX-License-Identifier: MIT
// The differentiated mean field through its public header: every option, odd sizes, strided views,
// many threads. Values are held to difference quotients in Python; this is what the sanitizers
// watch.
#include "gradients.h"

#include <stdexcept>

#include "check.h"
#include "cpu/dispatch.h"

using crfseg::BackOptions;
using crfseg::CoupledKernel;
using crfseg::FeatureGradient;
using crfseg::Gradients;
using crfseg::LabelView;
using crfseg::Lattice;
using crfseg::Normalization;
using crfseg::UnrolledField;
using crfseg::UnrollOptions;

namespace {

// A random problem with a two-dimensional and a three-dimensional kernel, one of them full.
struct Problem {
  Problem(std::int64_t points, int labels, Normalization normalization, std::uint64_t seed)
      : n_points(points), n_labels(labels) {
    check::Random random(seed);
    unary = random.uniforms(n_points * n_labels, -2.0F, 2.0F);
    gradient = random.uniforms(n_points * n_labels, -1.0F, 1.0F);
    for (int dim : {2, 3}) {
      features.push_back(random.uniforms(n_points * dim, -3.0F, 3.0F));
      const auto lattice = std::make_shared<const Lattice>(features.back().data(), n_points, dim,
                                                           std::vector<int>{}, 1, 2);
      const bool is_full = dim == 3;
      const std::int64_t size = is_full ? std::int64_t(n_labels) * n_labels : n_labels;
      kernels.push_back({lattice, normalization, {is_full, random.uniforms(size, 0.0F, 0.5F)}});
    }
  }

  template <class T>
  LabelView<T> view(T* data, bool by_point) const {
    return by_point ? LabelView<T>{data, n_labels, n_points, 1, n_labels}
                    : LabelView<T>{data, n_labels, n_points, n_points, 1};
  }

  std::int64_t n_points;
  int n_labels;
  std::vector<float> unary, gradient;
  std::vector<std::vector<float>> features;
  std::vector<CoupledKernel> kernels;
};

struct Result {
  std::vector<float> out, unary;
  std::vector<std::vector<float>> features;
  Gradients found;
};

Result differentiate(const Problem& problem, const UnrollOptions& options, FeatureGradient form,
                     int threads, bool by_point = false) {
  Result result;
  result.out.resize(problem.unary.size());
  result.unary.resize(problem.unary.size());
  UnrolledField field(problem.n_points, problem.n_labels, problem.kernels, threads);
  UnrollOptions run = options;
  run.threads = threads;
  field.run(problem.view(problem.unary.data(), by_point), false, run,
            problem.view(result.out.data(), by_point));
  BackOptions back;
  back.threads = threads;
  for (std::size_t k = 0; k < problem.kernels.size(); ++k) {
    result.features.emplace_back(problem.features[k].size());
    back.features.push_back({problem.features[k].data(), form, result.features[k].data()});
    back.probes.push_back({static_cast<int>(k), problem.kernels[k].lattice});
  }
  result.found = field.back(problem.view(problem.gradient.data(), by_point), back,
                            problem.view(result.unary.data(), by_point));
  return result;
}

bool same(const Result& one, const Result& other) {
  return one.out == other.out && one.unary == other.unary && one.features == other.features &&
         one.found.couplings == other.found.couplings && one.found.probes == other.found.probes;
}

void threads_and_recomputing_change_nothing() {
  for (const auto form : {FeatureGradient::exact, FeatureGradient::smooth}) {
    for (const int n_labels : {1, 3, 5, 21, 33}) {
      const Problem problem(n_labels < 10 ? 9001 : 1003, n_labels, Normalization::symmetric, 7);
      UnrollOptions options;
      options.iterations = options.differentiated = 4;
      const Result once = differentiate(problem, options, form, 1);
      CHECK(same(once, differentiate(problem, options, form, 4)));
      options.every = 3;
      CHECK(same(once, differentiate(problem, options, form, 3)));
    }
  }
}

void every_option_runs() {
  for (const std::string& isa : crfseg::available_isas()) {
    crfseg::set_isa(isa);
    for (const auto normalization : {Normalization::none, Normalization::before,
                                     Normalization::after, Normalization::symmetric}) {
      for (const std::int64_t n_points : {1, 7, 70}) {
        const Problem problem(n_points, 6, normalization, 3);
        for (int last = 0; last <= 3; ++last) {
          UnrollOptions options;
          options.iterations = 3;
          options.differentiated = last;
          options.every = 1 + last % 2;
          options.wants_logits = last % 2 == 0;
          const Result rows = differentiate(problem, options, FeatureGradient::exact, 2, true);
          for (const float value : rows.unary) CHECK(std::isfinite(value));
        }
      }
    }
  }
}

void a_fixed_point_is_gone_back_from() {
  const Problem problem(500, 3, Normalization::symmetric, 5);
  UnrollOptions options;
  options.iterations = 200;
  options.fixed_point = true;
  options.tolerance = 1e-5F;
  const Result still = differentiate(problem, options, FeatureGradient::exact, 2);
  CHECK(still.found.converged);
  CHECK(still.found.terms > 1);
  options.fixed_point = false;
  options.iterations = options.differentiated = 40;
  const Result unrolled = differentiate(problem, options, FeatureGradient::exact, 2);
  CHECK(check::largest_difference(still.unary, unrolled.unary) < 1e-3);
}

void what_was_not_run_is_refused() {
  const Problem problem(20, 3, Normalization::after, 1);
  UnrolledField field(problem.n_points, problem.n_labels, problem.kernels, 1);
  std::vector<float> out(problem.unary.size());
  CHECK_THROWS(field.back(problem.view(problem.gradient.data(), false), BackOptions{},
                          problem.view(out.data(), false)),
               std::invalid_argument);
}

}  // namespace

int main() {
  threads_and_recomputing_change_nothing();
  every_option_runs();
  a_fixed_point_is_gone_back_from();
  what_was_not_run_is_refused();
  return check::result();
}
