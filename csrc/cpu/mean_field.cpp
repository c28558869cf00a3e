// SPDX-License-Identifier: MIT
#include "mean_field.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "cpu/dispatch.h"
#include "cpu/field_kernel.h"
#include "cpu/scratch.h"
#include "cpu/slab_field.h"
#include "cpu/two_labels.h"
#include "cpu/unary_supply.h"
#include "cpu/update.h"
#include "parallel.h"

namespace crfseg {

struct MeanField::Pass {
  bool slice = true, splat = true;
  bool change = false, energy = false, entropy = true;
  bool keep_q = false, given_q = false;
  float damping = 0.0F;
  kernels::Update update{false, 1.0F, 1.0F};
  LabelView<float> out;
  std::int32_t* labels = nullptr;
  int threads = 1;
};

MeanField::MeanField(std::int64_t n_points, int n_labels)
    : strips_(Strips::of(n_points)),
      n_labels_(n_labels <= max_labels ? n_labels
                                       : throw std::invalid_argument("at most 2^20 labels")),
      width_(std::max(4, row_width(n_labels))) {}

MeanField::~MeanField() = default;

std::int64_t MeanField::nbytes() const {
  std::int64_t sum = log_unary_.nbytes() + q_.nbytes() + z_.nbytes() + p_.nbytes();
  if (unary_.coarse) sum += unary_.coarse->nbytes();
  for (const auto& kernel : kernels_) sum += kernel->nbytes();
  return sum;
}

void MeanField::add_kernel(std::shared_ptr<const Lattice> lattice, Normalization normalization,
                           float weight, Compatibility compatibility, bool exclude_self,
                           int threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  kernels_.push_back(std::make_unique<FieldKernel>(std::move(lattice), normalization, weight,
                                                   compatibility, exclude_self, n_labels_, width_,
                                                   threads));
}

void MeanField::clear_kernels() {
  const std::lock_guard<std::mutex> lock(mutex_);
  kernels_.clear();
}

void MeanField::exchange(int threads) {
  std::vector<VertexRows*> all;
  for (const auto& kernel : kernels_) kernel->list_rows(&all);
  VertexRows::blur(all, false, threads);
  for (const auto& kernel : kernels_) kernel->mix(threads);
}

MeanField::Totals MeanField::run(const Pass& wanted) {
  const int batch = batch_points(width_);
  const std::int64_t batch_size = std::int64_t{batch} * width_;
  Scratch scratch(batch_size + (wanted.slice ? most_rows(kernels_, strips_) * width_ : 0));
  std::vector<float> changes(static_cast<std::size_t>(strips_.count));
  std::vector<double> energies(static_cast<std::size_t>(strips_.count));
  parallel_for(strips_.count, wanted.threads, [&](std::int64_t s) {
    Scratch::Loan loan = scratch.borrow();
    std::vector<kernels::Message> messages;
    float* incoming = loan.data() + batch_size;
    for (const auto& kernel : kernels_) {
      messages.push_back(kernel->message(s, wanted.slice ? incoming : nullptr, wanted.splat));
      incoming += kernel->lattice().local_rows(s) * width_;
    }
    const std::int64_t begin = strips_.begin(s);
    float* q = wanted.keep_q || wanted.given_q ? q_.data() + begin * width_ : nullptr;
    kernels::FieldPass pass{};
    pass.n_points = strips_.end(s) - begin;
    pass.n_labels = n_labels_;
    pass.width = width_;
    pass.log_unary = log_unary_.data() + begin * width_;
    pass.messages = messages.data();
    pass.n_messages = static_cast<int>(messages.size());
    pass.scratch = loan.data();
    pass.batch = batch;
    pass.update = wanted.update;
    pass.damping = wanted.damping;
    pass.z = wanted.damping > 0.0F ? z_.data() + begin * width_ : nullptr;
    pass.q = wanted.given_q ? nullptr : q;
    pass.fixed_q = wanted.given_q ? q : nullptr;
    if (wanted.out) pass.out = strip_of(wanted.out, begin);
    pass.labels = wanted.labels != nullptr ? wanted.labels + begin : nullptr;
    pass.want_change = wanted.change;
    pass.want_energy = wanted.energy;
    pass.entropy = wanted.entropy;
    active_kernels().field_pass(&pass);
    changes[s] = pass.max_change;
    energies[s] = pass.energy;
  });
  Totals totals;
  for (const float change : changes) totals.change = std::max(totals.change, change);
  for (const double energy : energies) totals.energy += energy;
  return totals;
}

void MeanField::load_q(LabelView<const float> q, int threads) {
  q_.resize(strips_.n_points * width_);
  parallel_for(strips_.count, threads, [&](std::int64_t s) {
    for (std::int64_t p = strips_.begin(s); p < strips_.end(s); ++p) {
      float* row = q_.data() + p * width_;
      for (int label = 0; label < n_labels_; ++label) row[label] = q(label, p);
      std::fill(row + n_labels_, row + width_, 0.0F);
    }
  });
}

// The natural parameters that damping starts from: -U, or the logarithm of a given Q.
void MeanField::start_damping(bool given_q, int threads) {
  z_.resize(log_unary_.size());
  const float tiny = std::numeric_limits<float>::min();
  parallel_ranges(z_.size(), 65536, threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      z_[i] = given_q ? std::log(std::max(q_[i], tiny)) : log_unary_[i];
    }
  });
}

bool MeanField::excludes_self() const {
  return std::any_of(kernels_.begin(), kernels_.end(),
                     [](const auto& kernel) { return kernel->excludes_self(); });
}

Inference MeanField::infer(LabelView<const float> start, const InferenceOptions& options,
                           LabelView<float> out, std::int32_t* labels) {
  if (!(options.solver.damping >= 0.0F && options.solver.damping < 1.0F)) {
    throw std::invalid_argument("damping must be at least 0 and, in float32, below 1");
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  // Whether nothing is asked for that needs every point's Q in every iteration.
  const bool is_plain = options.iterations > 0 && !start && options.solver.is_mean_field() &&
                        options.tolerance == 0.0F && !options.trace && !kernels_.empty() &&
                        !excludes_self();
  Inference result;
  result.iterations = options.iterations;
  result.evaluations = options.iterations * strips_.n_points * n_labels_;
  result.max_change = std::numeric_limits<float>::quiet_NaN();
  if (is_plain && TwoLabels::apply(kernels_, n_labels_)) {
    infer_two_labels(options, out, labels);
    return result;
  }
  InferenceOptions left = options;
  if (is_plain && SlabField::apply(kernels_, n_labels_)) {
    if (infer_slabs(options, out, labels, &result.evaluations)) return result;
    left.after_reading = nullptr;  // what it has to say has been said
  }
  p_.resize(0);
  infer_fully(start, left, out, labels, &result);
  return result;
}

void MeanField::infer_two_labels(const InferenceOptions& options, LabelView<float> out,
                                 std::int32_t* labels) {
  TwoLabels field(unary_, kernels_, strips_, options.threads);
  const UnaryReport report = field.start();
  if (unary_.rows == nullptr && options.after_reading) options.after_reading(report);
  for (int left = options.iterations; left > 0; --left) {
    if (options.between_iterations) options.between_iterations();
    exchange(options.threads);
    if (left > 1) {
      field.step(false, {}, nullptr);
    } else {
      field.step(true, out, labels);
    }
  }
}

// Whether it came to the end; if not, nothing is lost but time.
bool MeanField::infer_slabs(const InferenceOptions& options, LabelView<float> out,
                            std::int32_t* labels, std::int64_t* evaluations) {
  SlabField field(unary_, kernels_, strips_, n_labels_, width_, options.skip, options.threads, &p_);
  const bool in_turn = field.can_keep() && rows_had_better_go(out);
  const UnaryReport report = field.start();
  if (unary_.rows == nullptr && options.after_reading) options.after_reading(report);
  for (int left = options.iterations; left > 0; --left) {
    if (options.between_iterations) options.between_iterations();
    exchange(options.threads);
    const bool done = left > 1 ? field.step() : in_turn ? field.keep() : field.finish(out, labels);
    if (!done) return false;
  }
  if (in_turn) {
    for (const auto& kernel : kernels_) kernel->drop_rows();
    release_free_memory();
    field.write(out, labels);
  }
  *evaluations = field.evaluated();
  return true;
}

// Whether rows of vertices take so much that they and the result had better not be there together:
// Q stays where the unary was until the rows are gone.
bool MeanField::rows_had_better_go(LabelView<float> out) const {
  std::int64_t of_rows = 0;
  for (const auto& kernel : kernels_) of_rows += kernel->nbytes();
  if (!out || 2 * of_rows < out.nbytes()) return false;
  // Pages that the result has are given back.
  if (out.is_one_piece()) release_pages(out.data, static_cast<std::size_t>(out.nbytes()));
  return true;
}

void MeanField::infer_fully(LabelView<const float> start, const InferenceOptions& options,
                            LabelView<float> out, std::int32_t* labels, Inference* result) {
  if (unary_.rows == nullptr) {
    const UnaryReport report = load_rows(options.threads);
    if (options.after_reading) options.after_reading(report);
  }
  const bool given = static_cast<bool>(start);
  const bool watch = options.tolerance > 0.0F || options.trace;
  const Solver& solver = options.solver;
  const bool keep_q = watch || excludes_self() || !solver.replaces();
  for (const auto& kernel : kernels_) kernel->hold_labels();
  if (given) load_q(start, options.threads);
  if (given && !solver.replaces()) drop_forbidden(options.threads);
  if (keep_q) q_.resize(log_unary_.size());
  if (solver.damping > 0.0F) start_damping(given, options.threads);

  Pass first;
  first.threads = options.threads;
  first.slice = false;
  first.splat = options.iterations > 0 || options.trace;
  first.given_q = given;
  first.keep_q = keep_q;
  if (options.iterations == 0) {
    first.out = out;
    first.labels = labels;
  }
  run(first);

  const bool searches = solver.steps == Solver::Steps::line_search;
  if (searches) {
    search_lines(options, result);
  } else {
    iterate(options, keep_q, out, labels, result);
  }
  if ((watch || searches) && result->iterations > 0) {
    Pass write;
    write.threads = options.threads;
    write.slice = write.splat = false;
    write.given_q = true;
    write.out = out;
    write.labels = labels;
    run(write);
  }
  if (result->iterations == 0 || !watch) {
    result->max_change = std::numeric_limits<float>::quiet_NaN();
  }
  result->evaluations = result->iterations * strips_.n_points * n_labels_;
}

// Q having been splatted; hands it out itself unless every Q is watched.
void MeanField::iterate(const InferenceOptions& options, bool keep_q, LabelView<float> out,
                        std::int32_t* labels, Inference* result) {
  const bool watch = options.tolerance > 0.0F || options.trace;
  Pass step;
  step.threads = options.threads;
  step.change = watch;
  step.keep_q = keep_q;
  step.damping = options.solver.damping;
  result->iterations = 0;
  bool done = options.iterations == 0;
  while (!done) {
    if (options.between_iterations) options.between_iterations();
    exchange(options.threads);
    if (options.trace) result->trace.push_back(evaluate(true, options.threads));
    step.update = update_of(options.solver, result->iterations);
    ++result->iterations;
    const bool last = result->iterations == options.iterations;
    if (last && !watch) {
      step.out = out;
      step.labels = labels;
      step.splat = false;
    }
    result->max_change = run(step).change;
    done = last || (options.tolerance > 0.0F && result->max_change < options.tolerance);
  }
  if (options.trace) {
    exchange(options.threads);
    result->trace.push_back(evaluate(true, options.threads));
  }
}

// The free energy of q_ (without the entropy: its expected energy), its splat having been
// exchanged.
double MeanField::evaluate(bool entropy, int threads) {
  Pass pass;
  pass.threads = threads;
  pass.splat = false;
  pass.keep_q = true;
  pass.energy = true;
  pass.entropy = entropy;
  return run(pass).energy + unary_offset_ + potts_constant(threads);
}

// The passes take Potts' [a != b] as -[a == b]; what that leaves out of the energy is half the
// total weight of all pairs.
double MeanField::potts_constant(int threads) {
  double sum = 0.0;
  for (const auto& kernel : kernels_) {
    if (kernel->kind() == Compatibility::Kind::potts) sum += kernel->half_total_weight(threads);
  }
  return sum;
}

double MeanField::energy_of_q(bool entropy, int threads) {
  for (const auto& kernel : kernels_) kernel->hold_labels();
  Pass splat;
  splat.threads = threads;
  splat.slice = false;
  splat.given_q = true;
  run(splat);
  exchange(threads);
  return evaluate(entropy, threads);
}

double MeanField::free_energy(LabelView<const float> q, int threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  load_q(q, threads);
  return energy_of_q(true, threads);
}

double MeanField::expected_energy(LabelView<const float> q, int threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  load_q(q, threads);
  return energy_of_q(false, threads);
}

double MeanField::energy(const std::int32_t* labels, int threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  q_.resize(log_unary_.size());
  std::fill(q_.begin(), q_.end(), 0.0F);
  for (std::int64_t p = 0; p < strips_.n_points; ++p) q_[p * width_ + labels[p]] = 1.0F;
  return energy_of_q(false, threads);
}

}  // namespace crfseg
