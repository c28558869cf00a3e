// SPDX-License-Identifier: MIT
#include "mean_field.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "cpu/dispatch.h"
#include "cpu/field_kernel.h"
#include "cpu/scratch.h"
#include "cpu/skipping.h"
#include "cpu/two_labels.h"
#include "cpu/unary_supply.h"
#include "parallel.h"

namespace crfseg {
struct MeanField::Pass {
  bool slice = true, splat = true;
  bool change = false, energy = false, entropy = true;
  bool keep_q = false, given_q = false;
  bool in_place = false;                                // Q is kept, or given, where the unary was
  std::vector<kernels::UnaryStats>* reading = nullptr;  // load rows on the way: for each strip
  bool rows = true;  // there are rows, or shall be: otherwise unaries are read every time
  float damping = 0.0F;
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
  std::int64_t sum = log_unary_.nbytes() + q_.nbytes() + z_.nbytes();
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
  for (const auto& kernel : kernels_) all.push_back(&kernel->rows());
  VertexRows::blur(all, false, threads);
  for (const auto& kernel : kernels_) kernel->mix(threads);
}

MeanField::Totals MeanField::run(const Pass& wanted) {
  const int batch = batch_points(width_);
  std::vector<std::int64_t> incoming_at;
  std::int64_t scratch_size = batch * width_;
  for (const auto& kernel : kernels_) {
    incoming_at.push_back(scratch_size);
    std::int64_t most = 0;
    for (std::int64_t s = 0; s < strips_.count; ++s) {
      most = std::max(most, kernel->lattice().local_rows(s));
    }
    if (wanted.slice) scratch_size += most * width_;
  }
  Scratch scratch(scratch_size);
  std::vector<float> changes(static_cast<std::size_t>(strips_.count));
  std::vector<double> energies(static_cast<std::size_t>(strips_.count));
  parallel_for(strips_.count, wanted.threads, [&](std::int64_t s) {
    Scratch::Loan loan = scratch.borrow();
    std::vector<kernels::Message> messages;
    for (std::size_t k = 0; k < kernels_.size(); ++k) {
      messages.push_back(kernels_[k]->message(
          s, wanted.slice ? loan.data() + incoming_at[k] : nullptr, wanted.splat));
    }
    const std::int64_t begin = strips_.begin(s);
    float* all_q = wanted.in_place ? log_unary_.data() : q_.data();
    float* q = wanted.keep_q || wanted.given_q ? all_q + begin * width_ : nullptr;
    kernels::FieldPass pass{};
    pass.n_points = strips_.end(s) - begin;
    pass.n_labels = n_labels_;
    pass.width = width_;
    pass.log_unary = wanted.rows ? log_unary_.data() + begin * width_ : nullptr;
    const kernels::UnarySource source = unary_.strip(strips_, s, width_);
    pass.unary = &source;
    if (wanted.reading != nullptr) {
      (*wanted.reading)[s] = empty_stats();
      pass.stats = &(*wanted.reading)[s];
    }
    pass.messages = messages.data();
    pass.n_messages = static_cast<int>(messages.size());
    pass.scratch = loan.data();
    pass.batch = batch;
    pass.damping = wanted.damping;
    pass.z = wanted.damping > 0.0F ? z_.data() + begin * width_ : nullptr;
    pass.q = wanted.given_q ? nullptr : q;
    pass.fixed_q = wanted.given_q ? q : nullptr;
    if (wanted.out) {
      pass.out = {wanted.out.data + begin * wanted.out.point_stride, wanted.out.label_stride,
                  wanted.out.point_stride};
    }
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
  if (!(options.damping >= 0.0F && options.damping < 1.0F)) {
    throw std::invalid_argument("damping must be at least 0 and, in float32, below 1");
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  Inference result;
  result.max_change = std::numeric_limits<float>::quiet_NaN();
  // Whether nothing is asked for that needs every point's Q in every iteration.
  const bool is_plain = options.iterations > 0 && !start && options.damping == 0.0F &&
                        options.tolerance == 0.0F && !options.trace && !kernels_.empty() &&
                        !excludes_self();
  if (is_plain && should_skip(options) && infer_skipping(options, out, labels, &result)) {
    return result;
  }
  if (is_plain && TwoLabels::apply(kernels_, n_labels_)) {
    infer_two_labels(options, out, labels, &result);
  } else {
    infer_fully(start, options, out, labels, &result);
  }
  return result;
}

void MeanField::infer_two_labels(const InferenceOptions& options, LabelView<float> out,
                                 std::int32_t* labels, Inference* result) {
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
  result->iterations = options.iterations;
  result->evaluations = options.iterations * strips_.n_points;
}

// Whether the iterations after the first two leave enough to skip.
bool MeanField::should_skip(const InferenceOptions& options) const {
  if (options.skip != Skip::where_it_pays) {
    return options.skip == Skip::always && options.iterations > 2;
  }
  return options.iterations >= Skipping::fewest_iterations &&
         options.iterations <= Skipping::most_iterations && n_labels_ >= Skipping::fewest_labels &&
         n_labels_ <= Skipping::most_labels && strips_.n_points <= Skipping::most_points &&
         Skipping::sampled_uncertainty(unary_, strips_, n_labels_, width_) <=
             Skipping::most_uncertainty;
}

// Whether it came to the end; if not, nothing is lost but time.
bool MeanField::infer_skipping(const InferenceOptions& options, LabelView<float> out,
                               std::int32_t* labels, Inference* result) {
  Skipping skipping(unary_, kernels_, strips_, n_labels_, width_, out, labels, options.threads);
  const UnaryReport report = skipping.start();
  if (unary_.rows == nullptr && options.after_reading) options.after_reading(report);
  for (int i = 0; i < options.iterations; ++i) {
    if (options.between_iterations) options.between_iterations();
    exchange(options.threads);
    if (i > 0) {
      skipping.step(i + 1 == options.iterations);
    } else if (!skipping.settle() && options.skip == Skip::where_it_pays) {
      return false;
    }
  }
  skipping.write();
  result->iterations = options.iterations;
  result->evaluations = skipping.evaluations();
  return true;
}

// Whether rows of vertices take so much that they and the result had better not be there together:
// Q stays where the unary was until the rows are gone. Pages that the result has are given back.
bool MeanField::result_can_wait(LabelView<float> out) const {
  std::int64_t of_rows = 0;
  for (const auto& kernel : kernels_) of_rows += kernel->rows().nbytes();
  if (!out || 2 * of_rows < out.nbytes()) return false;
  if (out.is_one_piece()) release_pages(out.data, static_cast<std::size_t>(out.nbytes()));
  return true;
}

void MeanField::infer_fully(LabelView<const float> start, const InferenceOptions& options,
                            LabelView<float> out, std::int32_t* labels, Inference* result) {
  const bool given = static_cast<bool>(start);
  const bool read_on_the_way = unary_.rows == nullptr && !given && options.damping == 0.0F;
  const UnarySupply lent = unary_;
  const auto judge = [&](const UnaryReport& report) {
    if (options.after_reading) options.after_reading(report);
  };
  const bool watch = options.tolerance > 0.0F || options.trace;
  const bool keep_q = watch || excludes_self();
  const bool rows = !read_on_the_way || keep_q || !unary_.makes_rows();
  if (read_on_the_way && rows) {
    log_unary_.resize(strips_.n_points * width_);
  } else if (unary_.rows == nullptr && rows) {
    judge(load_rows(options.threads));
  }
  for (const auto& kernel : kernels_) kernel->keep_sums(false);
  const bool in_turn =
      read_on_the_way && rows && !keep_q && options.iterations > 0 && result_can_wait(out);
  if (given) load_q(start, options.threads);
  if (keep_q) q_.resize(log_unary_.size());
  if (options.damping > 0.0F) start_damping(given, options.threads);

  Pass first;
  first.threads = options.threads;
  first.slice = false;
  first.rows = rows;
  first.splat = options.iterations > 0 || options.trace;
  first.given_q = given;
  first.keep_q = keep_q;
  if (options.iterations == 0) {
    first.out = out;
    first.labels = labels;
  }
  std::vector<kernels::UnaryStats> found(static_cast<std::size_t>(strips_.count));
  if (read_on_the_way) first.reading = &found;
  run(first);
  if (read_on_the_way) judge(rows ? note_rows(found) : merge(strips_, found));

  Pass step;
  step.threads = options.threads;
  step.rows = rows;
  step.change = watch;
  step.keep_q = keep_q;
  step.damping = options.damping;
  bool done = options.iterations == 0;
  while (!done) {
    if (options.between_iterations) options.between_iterations();
    exchange(options.threads);
    if (options.trace) result->trace.push_back(evaluate(true, options.threads));
    ++result->iterations;
    const bool last = result->iterations == options.iterations;
    if (last && in_turn) {
      step.splat = false;
      step.keep_q = step.in_place = true;
      unary_ = lent;
    } else if (last && !watch) {
      step.out = out;
      step.labels = labels;
      step.splat = false;
    }
    const Totals totals = run(step);
    if (watch) result->max_change = totals.change;
    done = last || (options.tolerance > 0.0F && totals.change < options.tolerance);
  }
  if (options.trace) {
    exchange(options.threads);
    result->trace.push_back(evaluate(true, options.threads));
  }
  if (in_turn) {
    for (const auto& kernel : kernels_) kernel->drop_rows();
    release_free_memory();
  }
  if (in_turn || (watch && result->iterations > 0)) {
    Pass write;
    write.threads = options.threads;
    write.slice = write.splat = false;
    write.given_q = true;
    write.in_place = in_turn;
    write.out = out;
    write.labels = labels;
    run(write);
  }
  if (result->iterations == 0) result->max_change = std::numeric_limits<float>::quiet_NaN();
  result->evaluations = result->iterations * strips_.n_points;
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
  for (const auto& kernel : kernels_) kernel->keep_sums(false);
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

double MeanField::energy(const std::int32_t* labels, int threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  q_.resize(log_unary_.size());
  std::fill(q_.begin(), q_.end(), 0.0F);
  for (std::int64_t p = 0; p < strips_.n_points; ++p) q_[p * width_ + labels[p]] = 1.0F;
  return energy_of_q(false, threads);
}

}  // namespace crfseg
