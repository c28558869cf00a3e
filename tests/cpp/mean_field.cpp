// SPDX-License-Identifier: MIT
// Mean field through its public header: every option, odd sizes, views of any stride, many threads.
// Values are held to a reference in Python; this is what the sanitizers watch.
#include "mean_field.h"

#include <limits>
#include <stdexcept>
#include <string>
#include <thread>

#include "check.h"
#include "cpu/dispatch.h"

using crfseg::Compatibility;
using crfseg::InferenceOptions;
using crfseg::LabelView;
using crfseg::Lattice;
using crfseg::MeanField;
using crfseg::Normalization;
using crfseg::UnaryKind;

namespace {

// (C, N) arrays in vectors.
LabelView<const float> view(const std::vector<float>& values, std::int64_t n_labels) {
  const auto n_points = static_cast<std::int64_t>(values.size()) / n_labels;
  return {values.data(), n_labels, n_points, n_points, 1};
}
LabelView<float> writeable(std::vector<float>* values, std::int64_t n_labels) {
  const auto n_points = static_cast<std::int64_t>(values->size()) / n_labels;
  return {values->data(), n_labels, n_points, n_points, 1};
}

// A random problem with a two-dimensional and a three-dimensional kernel.
struct Problem {
  Problem(std::int64_t points, int labels, std::uint64_t seed)
      : n_points(points), n_labels(labels), random(seed) {
    unary = random.uniforms(n_points * n_labels, -2.0F, 2.0F);
    for (int dim : {2, 3}) {
      const std::vector<float> features = random.uniforms(n_points * dim, -3.0F, 3.0F);
      lattices.push_back(std::make_shared<const Lattice>(features.data(), n_points, dim,
                                                         std::vector<int>{}, 1, 2));
    }
  }

  void load(MeanField* field, Compatibility::Kind kind, bool exclude_self) {
    field->set_unary(view(unary, n_labels), UnaryKind::energies, 1e-5F, 2);
    for (const auto& lattice : lattices) {
      Compatibility mu;
      mu.kind = kind;
      if (kind == Compatibility::Kind::vector) mu.values = random.uniforms(n_labels, 0.0F, 1.0F);
      if (kind == Compatibility::Kind::matrix) {
        mu.values = random.uniforms(std::int64_t(n_labels) * n_labels, -1.0F, 1.0F);
      }
      field->add_kernel(lattice, Normalization::symmetric, 1.5F, mu, exclude_self, 2);
    }
  }

  std::int64_t n_points;
  int n_labels;
  check::Random random;
  std::vector<float> unary;
  std::vector<std::shared_ptr<const Lattice>> lattices;
};

std::vector<float> infer(MeanField* field, const InferenceOptions& options) {
  std::vector<float> q(static_cast<std::size_t>(field->n_points() * field->n_labels()));
  field->infer({}, options, writeable(&q, field->n_labels()), nullptr);
  return q;
}

bool is_distribution(const std::vector<float>& q, std::int64_t n_points) {
  for (std::int64_t i = 0; i < n_points; ++i) {
    double sum = 0.0;
    for (auto at = static_cast<std::size_t>(i); at < q.size(); at += std::size_t(n_points)) {
      if (!(q[at] >= 0.0F && q[at] <= 1.0F)) return false;
      sum += q[at];
    }
    if (std::abs(sum - 1.0) > 1e-5) return false;
  }
  return true;
}

void every_option_gives_distributions() {
  using Kind = Compatibility::Kind;
  for (int n_labels : {1, 2, 3, 8, 17, 33}) {
    for (Kind kind : {Kind::potts, Kind::vector, Kind::matrix}) {
      for (bool exclude_self : {false, true}) {
        Problem problem(257, n_labels, 1);
        MeanField field(257, n_labels);
        problem.load(&field, kind, exclude_self);
        InferenceOptions options;
        options.iterations = 3;
        options.threads = 3;
        for (float damping : {0.0F, 0.5F}) {
          for (bool trace : {false, true}) {
            options.solver.damping = damping;
            options.trace = trace;
            CHECK(is_distribution(infer(&field, options), 257));
          }
        }
      }
    }
  }
}

void sizes_at_the_edges_work() {
  for (std::int64_t n : {1, 2, 7, 8, 9, 63, 64, 65, 255, 1000}) {
    Problem problem(n, 5, 2);
    MeanField field(n, 5);
    problem.load(&field, Compatibility::Kind::potts, false);
    CHECK(is_distribution(infer(&field, {}), n));
  }
}

// (N, C) in and out, with gaps, gives what (C, N) gives.
void views_of_any_stride_are_the_same() {
  Problem problem(300, 6, 3);
  MeanField field(300, 6);
  problem.load(&field, Compatibility::Kind::potts, false);
  const std::vector<float> expected = infer(&field, {});

  const std::int64_t gap = 9;  // room for three labels that are not there
  std::vector<float> unary(300 * gap, std::numeric_limits<float>::quiet_NaN());
  for (std::int64_t i = 0; i < 300; ++i) {
    for (std::int64_t label = 0; label < 6; ++label) {
      unary[std::size_t(i * gap + label)] = problem.unary[std::size_t(label * 300 + i)];
    }
  }
  field.set_unary({unary.data(), 6, 300, 1, gap}, UnaryKind::energies, 1e-5F, 2);
  std::vector<float> q(300 * gap, -1.0F);
  std::vector<std::int32_t> labels(300);
  field.infer({}, {}, {q.data(), 6, 300, 1, gap}, labels.data());
  for (std::int64_t i = 0; i < 300; ++i) {
    int best = 0;
    for (std::int64_t label = 0; label < 6; ++label) {
      const float value = q[std::size_t(i * gap + label)];
      CHECK(value == expected[std::size_t(label * 300 + i)]);
      if (value > q[std::size_t(i * gap + best)]) best = static_cast<int>(label);
    }
    CHECK(labels[std::size_t(i)] == best);
    for (std::int64_t rest = 6; rest < gap; ++rest) CHECK(q[std::size_t(i * gap + rest)] == -1.0F);
  }
}

void threads_change_no_bit() {
  Problem problem(20000, 7, 4);
  std::vector<float> expected;
  std::vector<double> expected_trace;
  for (int threads : {1, 2, 5}) {
    MeanField field(20000, 7);
    problem.random = check::Random(5);  // the same matrices every time
    problem.load(&field, Compatibility::Kind::matrix, true);
    InferenceOptions options;
    options.iterations = 2;
    options.trace = true;
    options.threads = threads;
    std::vector<float> q(20000 * 7);
    const auto result = field.infer({}, options, writeable(&q, 7), nullptr);
    CHECK(result.trace.size() == 3);
    if (threads == 1) {
      expected = q;
      expected_trace = result.trace;
    }
    CHECK(q == expected);
    CHECK(result.trace == expected_trace);
  }
}

void instruction_sets_agree() {
  std::vector<float> first;
  for (const std::string& isa : crfseg::available_isas()) {
    crfseg::set_isa(isa);
    Problem problem(500, 11, 6);
    MeanField field(500, 11);
    problem.load(&field, Compatibility::Kind::vector, true);
    const std::vector<float> q = infer(&field, {});
    if (first.empty()) first = q;
    CHECK(check::largest_difference(q, first) < 1e-5);
  }
}

// A start of one step's result goes on where the inference would have.
void a_start_is_taken_up() {
  Problem problem(400, 4, 7);
  MeanField field(400, 4);
  problem.load(&field, Compatibility::Kind::potts, false);
  InferenceOptions options;
  options.iterations = 1;
  const std::vector<float> once = infer(&field, options);
  std::vector<float> twice(once.size());
  field.infer(view(once, 4), options, writeable(&twice, 4), nullptr);
  options.iterations = 2;
  CHECK(check::largest_difference(twice, infer(&field, options)) < 1e-6);
}

void an_interruption_leaves_the_field_usable() {
  Problem problem(2000, 5, 8);
  MeanField field(2000, 5);
  problem.load(&field, Compatibility::Kind::potts, false);
  const std::vector<float> expected = infer(&field, {});
  InferenceOptions options;
  options.iterations = 1000000000;
  options.threads = 2;
  int calls = 0;
  options.between_iterations = [&calls] {
    if (++calls == 4) throw std::runtime_error("interrupted");
  };
  CHECK_THROWS(field.infer({}, options, {}, nullptr), std::runtime_error);
  CHECK(infer(&field, {}) == expected);
}

void tolerance_ends_an_inference() {
  Problem problem(500, 3, 9);
  MeanField field(500, 3);
  problem.load(&field, Compatibility::Kind::potts, false);
  InferenceOptions options;
  options.iterations = 1000;
  options.tolerance = 1e-3F;
  options.solver.damping = 0.2F;
  const auto result = field.infer({}, options, {}, nullptr);
  CHECK(result.iterations < 1000);
  CHECK(result.max_change < 1e-3F);
}

// Several callers of one field take turns; callers of different fields share the threads.
void fields_can_be_used_from_many_threads() {
  Problem problem(1500, 4, 10);
  MeanField shared(1500, 4);
  problem.load(&shared, Compatibility::Kind::potts, false);
  const std::vector<float> expected = infer(&shared, {});
  const std::vector<std::int32_t> labels(1500, 2);
  const double energy = shared.energy(labels.data(), 1);
  std::vector<std::vector<float>> found(6);
  std::vector<double> energies(6, 0.0);
  std::vector<std::thread> callers;
  for (std::size_t i = 0; i < 6; ++i) {
    callers.emplace_back([&, i] {
      MeanField own(1500, 4);
      Problem same(1500, 4, 10);
      same.load(&own, Compatibility::Kind::potts, false);
      InferenceOptions options;
      options.threads = 3;
      found[i] = infer(i % 2 == 0 ? &shared : &own, options);
      energies[i] = shared.energy(labels.data(), 2);
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const std::vector<float>& q : found) CHECK(q == expected);
  for (double value : energies) CHECK(value == energy);
}

void unaries_are_reported_on() {
  MeanField field(3, 2);
  const auto report = [&field](std::vector<float> values, UnaryKind kind) {
    return field.set_unary(view(values, 2), kind, 1e-5F, 2);
  };
  CHECK(report({1, 2, 3, 4, NAN, 6}, UnaryKind::energies).bad == 4);
  CHECK(report({1, 2, INFINITY, 4, 5, 6}, UnaryKind::energies).bad == -1);
  CHECK(report({1, 2, INFINITY, 4, 5, INFINITY}, UnaryKind::energies).bad >= 0);
  CHECK(report({1, 2, -INFINITY, 4, 5, 6}, UnaryKind::energies).bad == 2);
  const auto off = report({0.5F, 0.5F, 0.5F, 0.5F, 0.75F, 0.5F}, UnaryKind::probabilities);
  CHECK(off.bad == -1 && off.off_at == 1 && std::abs(off.off - 0.25F) < 1e-6F);
  const auto low = report({0.5F, 0.5F, 1.25F, 0.5F, 0.5F, -0.25F}, UnaryKind::probabilities);
  CHECK(low.low == -0.25F && low.low_at == 5);
}

void probabilities_logits_and_energies_mean_the_same() {
  check::Random random(11);
  std::vector<float> logits = random.uniforms(5 * 200, -3.0F, 3.0F), probs(1000), energies(1000);
  for (std::size_t i = 0; i < 200; ++i) {
    double sum = 0.0;
    for (std::size_t at = i; at < 1000; at += 200) sum += std::exp(double(logits[at]));
    for (std::size_t at = i; at < 1000; at += 200) {
      probs[at] = static_cast<float>(std::exp(double(logits[at])) / sum);
      energies[at] = -logits[at];
    }
  }
  std::vector<std::vector<float>> qs;
  const std::vector<float>* inputs[] = {&energies, &probs, &logits};
  for (int kind = 0; kind < 3; ++kind) {
    MeanField field(200, 5);
    field.set_unary(view(*inputs[kind], 5), static_cast<UnaryKind>(kind), 1e-5F, 2);
    qs.push_back(infer(&field, {}));
  }
  CHECK(check::largest_difference(qs[0], qs[1]) < 1e-6);
  CHECK(check::largest_difference(qs[0], qs[2]) < 1e-6);
}

}  // namespace

int main() {
  every_option_gives_distributions();
  sizes_at_the_edges_work();
  views_of_any_stride_are_the_same();
  threads_change_no_bit();
  instruction_sets_agree();
  a_start_is_taken_up();
  an_interruption_leaves_the_field_usable();
  tolerance_ends_an_inference();
  fields_can_be_used_from_many_threads();
  unaries_are_reported_on();
  probabilities_logits_and_energies_mean_the_same();
  return check::result();
}
