// SPDX-License-Identifier: MIT
#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>
#include <variant>

#include "cuda/field.cuh"
#include "cuda/field_term.cuh"
#include "cuda/grid.h"
#include "cuda/mean_field.h"
#include "cuda/sums.cuh"

namespace crfseg {
namespace cuda {

// What a pass is to do, beside what is the same for all.
struct MeanField::Step {
  bool slices = true, splats = true, watches = false, is_given = false, keeps = false;
  float damping = 0.0F;
  bool heeds_state = false;
  MarginalView out;
  LabelTarget labels;
};

MeanField::MeanField(const Tiling& tiling, int n_labels, Allocate allocate, Stream stream,
                     FloatType storage)
    : tiling_(tiling),
      n_labels_(n_labels),
      width_(padded(n_labels)),
      allocate_(std::move(allocate)),
      stream_(stream),
      room_(tiling, width_, allocate_),
      storage_(storage),
      log_unary_(stored_array(storage, tiling.n_slots() * width_, allocate_)),
      state_(sizeof(FieldState), allocate_),
      tile_sums_(2 * tiling.n_tiles(), allocate_) {
  if (n_labels < 1 || n_labels > most_labels) throw Error("a device takes 1 to 1024 labels");
}

MeanField::~MeanField() = default;

std::int64_t MeanField::nbytes() const {
  const std::int64_t log_unary =
      std::visit([](const auto& rows) { return rows.nbytes(); }, log_unary_);
  std::int64_t sum = log_unary + q_.nbytes() + z_.nbytes() + room_.nbytes();
  for (const auto& term : terms_) sum += term->nbytes();
  return sum;
}

void MeanField::add_kernel(std::shared_ptr<const Lattice> lattice, Normalization normalization,
                           double gain, float weight, const Compatibility& compatibility,
                           bool exclude_self) {
  if (terms_.size() == most_terms) throw Error("a device takes up to 8 pairwise terms");
  terms_.push_back(std::make_unique<Term>(std::move(lattice), normalization, gain, weight,
                                          compatibility, exclude_self, n_labels_, width_, storage_,
                                          allocate_, stream_));
}

void MeanField::exchange(const std::uint32_t* skip) {
  for (const auto& term : terms_) term->exchange(skip, stream_);
}

FieldPass MeanField::pass_of_all() const {
  FieldPass pass;
  pass.tiling = tiling_;
  pass.n_labels = n_labels_;
  pass.width = width_;
  for (const auto& term : terms_) pass.terms[pass.n_terms++] = term->view();
  std::visit([&](const auto& rows) { pass.log_unary = rows.data(); }, log_unary_);
  return pass;
}

void MeanField::run(const Step& step) {
  FieldPass pass = pass_of_all();
  pass.q = step.keeps || step.is_given ? q_.data() : nullptr;
  pass.is_given = step.is_given;
  pass.slices = step.slices;
  pass.splats = step.splats;
  pass.watches_change = step.watches;
  pass.damping = step.damping;
  pass.z = step.damping > 0.0F ? z_.data() : nullptr;
  pass.room = room_.rows();
  if (step.heeds_state) pass.state = reinterpret_cast<FieldState*>(state_.data());
  pass.out = step.out;
  pass.labels = step.labels;
  std::visit(
      [&](const auto& rows) {
        using T = typename std::decay_t<decltype(rows)>::Element;
        CRFSEG_LAUNCH(pass_field<T>, room_.blocks(), block_threads, room_.shared_bytes(), stream_,
                      pass);
      },
      log_unary_);
}

void MeanField::keep_marginals() {
  if (!q_) q_ = Array<float>(tiling_.n_slots() * width_, allocate_);
}

void MeanField::load_q(BatchView<const float> q) {
  keep_marginals();
  CRFSEG_LAUNCH(read_marginals, elementwise(tiling_.n_slots()), block_threads, 0, stream_, tiling_,
                q, n_labels_, width_, q_.data());
}

void MeanField::infer(BatchView<const float> start, const FieldOptions& options,
                      const MarginalView& out, const LabelTarget& labels) {
  if (labels.narrow != nullptr && n_labels_ > 256) throw Error("8 bits name up to 256 labels");
  const bool given = static_cast<bool>(start);
  const bool watch = options.tolerance > 0.0F || options.trace;
  const bool keep_q = watch || std::any_of(terms_.begin(), terms_.end(),
                                           [](const auto& term) { return term->excludes_self(); });
  fill_bytes(state_.data(), 0, static_cast<std::size_t>(state_.nbytes()), stream_);
  if (given) load_q(start);
  if (keep_q) keep_marginals();
  if (options.damping > 0.0F) {
    if (!z_) z_ = Array<float>(tiling_.n_slots() * width_, allocate_);
    if (given) {
      CRFSEG_LAUNCH(log_marginals, elementwise(z_.size()), block_threads, 0, stream_, z_.size(),
                    q_.data(), z_.data());
    }
  }
  if (options.trace) trace_ = Array<double>(options.iterations + 1, allocate_);
  last_ = options;  // for outcome(), once all that it reads is there
  Step first;
  first.slices = false;
  first.splats = options.iterations > 0 || options.trace;
  first.is_given = given;
  first.keeps = keep_q;
  first.damping = given ? 0.0F : options.damping;
  if (options.iterations == 0) {
    first.out = out;
    first.labels = labels;
  }
  run(first);
  iterate(options, keep_q, out, labels);
  if (watch && options.iterations > 0) {
    Step write;
    write.slices = write.splats = false;
    write.is_given = true;
    write.out = out;
    write.labels = labels;
    run(write);
  }
}

void MeanField::iterate(const FieldOptions& options, bool keep_q, const MarginalView& out,
                        const LabelTarget& labels) {
  const bool watch = options.tolerance > 0.0F || options.trace;
  auto* state = reinterpret_cast<FieldState*>(state_.data());
  const std::uint32_t* skip = watch ? &state->is_done : nullptr;
  Step step;
  step.watches = watch;
  step.keeps = keep_q;
  step.damping = options.damping;
  step.heeds_state = watch;
  for (int i = 0; i < options.iterations; ++i) {
    exchange(skip);
    if (options.trace) evaluate(true, skip, trace_.data() + i);
    if (i + 1 == options.iterations && !watch) {
      step.out = out;
      step.labels = labels;
      step.splats = false;
    }
    run(step);
    if (watch) CRFSEG_LAUNCH(end_iteration, 1, 1, 0, stream_, state, options.tolerance);
  }
  if (options.trace) {
    exchange(nullptr);
    evaluate(true, nullptr, trace_.data() + options.iterations);
  }
}

Outcome MeanField::outcome() {
  Outcome found;
  found.iterations = last_.iterations;
  found.max_change = std::numeric_limits<float>::quiet_NaN();
  if (last_.tolerance <= 0.0F && !last_.trace) return found;
  FieldState state;
  copy_to_host(&state, state_.data(), sizeof(state), stream_);
  found.iterations = static_cast<int>(state.iterations);
  if (found.iterations > 0) std::memcpy(&found.max_change, &state.last_change, sizeof(float));
  if (!last_.trace) return found;
  found.trace.resize(static_cast<std::size_t>(last_.iterations) + 1);
  copy_to_host(found.trace.data(), trace_.data(), found.trace.size() * sizeof(double), stream_);
  found.trace[state.iterations] = found.trace.back();
  found.trace.resize(std::size_t{state.iterations} + 1);
  const double constants = constant();
  for (double& energy : found.trace) energy += constants;
  return found;
}

// The energy of q_ up to what constant() adds, its splat having been exchanged.
void MeanField::evaluate(bool entropy, const std::uint32_t* skip, double* to) {
  FieldPass pass = pass_of_all();
  pass.q = q_.data();
  if (skip != nullptr) pass.state = reinterpret_cast<FieldState*>(state_.data());
  const std::int64_t n_tiles = tiling_.n_tiles();
  double* sums = tile_sums_.data() + n_tiles;  // behind the offsets of energies
  std::visit(
      [&](const auto& rows) {
        using T = typename std::decay_t<decltype(rows)>::Element;
        CRFSEG_LAUNCH(find_energy<T>, blocks_of(n_tiles), block_threads, double_per_thread, stream_,
                      pass, entropy, sums);
      },
      log_unary_);
  CRFSEG_LAUNCH(add_up<double>, 1, block_threads, double_per_thread, stream_, n_tiles, sums, to,
                skip);
}

// What rows leave out of energies: each point's lowest, and what Potts is more than -[a == b].
double MeanField::constant() {
  const Array<double> offset(1, allocate_);
  CRFSEG_LAUNCH(add_up<double>, 1, block_threads, double_per_thread, stream_, tiling_.n_tiles(),
                tile_sums_.data(), offset.data(), nullptr);
  double sum = offset.read(0, stream_);
  for (const auto& term : terms_) sum += term->half_total(allocate_, stream_);
  return sum;
}

double MeanField::energy_of_q(bool entropy) {
  Step splat;
  splat.slices = false;
  splat.is_given = true;
  run(splat);
  exchange(nullptr);
  const Array<double> found(1, allocate_);
  evaluate(entropy, nullptr, found.data());
  return found.read(0, stream_) + constant();
}

double MeanField::free_energy(BatchView<const float> q) {
  load_q(q);
  return energy_of_q(true);
}

double MeanField::expected_energy(BatchView<const float> q) {
  load_q(q);
  return energy_of_q(false);
}

double MeanField::energy(const std::int32_t* labels) {
  keep_marginals();
  CRFSEG_LAUNCH(read_labels, elementwise(tiling_.n_slots()), block_threads, 0, stream_, tiling_,
                labels, width_, q_.data());
  return energy_of_q(false);
}

}  // namespace cuda
}  // namespace crfseg
