// SPDX-License-Identifier: MIT
// The way back through the steps that were kept.
#include <algorithm>

#include "cuda/coupled_term.h"
#include "cuda/gradients.h"
#include "cuda/gradients_features.h"
#include "cuda/gradients_state.h"
#include "cuda/grid.h"
#include "cuda/passes.cuh"

namespace crfseg {
namespace cuda {
namespace {

struct BackPass : TilePass {
  BatchView<const float> gradient;  // of the first step: G, or delta where logits were asked for
  const float* q = nullptr;         // (slots, width) of the step that is left; null: G is delta
  bool splats = false;
  float* delta = nullptr;  // (slots, width) or null
  float* sum = nullptr;    // (slots, width): delta is added, or where it starts, put there
  bool starts_sum = false;
  std::uint32_t* largest = nullptr;  // (items) bits of max |delta|, or null
  const std::uint32_t* skip = nullptr;
};

// G of a tile.
CRFSEG_DEVICE void gather(const BackPass& pass, std::int64_t tile, const TileValues& own) {
  if (pass.gradient) {
    return read_tile(pass, tile, own, 0.0F, [&](std::int64_t point, int label) {
      return pass.gradient(tile / pass.tiling.per_item, label, point);
    });
  }
  const int quads = pass.width / 4;
  for (int i = thread_index(); i < pass.tiling.size() * quads; i += block_size()) {
    const int slot = i / quads, quad = i % quads;
    Quad g = no_quad();
    for (int k = 0; k < pass.n_terms; ++k) {
      g = g + message_of(pass.terms[k], tile, slot, pass.n_labels, pass.width, quad, nullptr);
    }
    store_quad(own.rows + slot * own.stride + 4 * quad, g);
  }
}

// G - <G, Q>
CRFSEG_DEVICE void subtract_mean(const float* q, int width, float* g) {
  Quad dot = no_quad();
  for (int x = 0; x < width; x += 4) dot = dot + load_quad(q + x) * load_quad(g + x);
  const Quad mean = all_of((dot.x + dot.y) + (dot.z + dot.w));
  for (int x = 0; x < width; x += 4) store_quad(g + x, load_quad(g + x) - mean);
}

CRFSEG_DEVICE std::uint32_t larger(std::uint32_t bits, float value) {
  const std::uint32_t others = bits_of_float(fabsf(value));
  return others > bits ? others : bits;
}

// The next delta of a tile, and where it goes.
CRFSEG_DEVICE void find_delta(const BackPass& pass, std::int64_t tile, const TileValues& own) {
  const int slots = pass.tiling.size(), quads = pass.width / 4;
  std::uint32_t largest = 0;
  for (int i = thread_index(); i < slots * quads; i += block_size()) {
    const std::int64_t at = tile * slots * pass.width + std::int64_t{4} * i;
    float* place = own.rows + i / quads * own.stride + i % quads * 4;
    Quad delta = load_quad(place);
    if (pass.q != nullptr) {
      delta = load_quad(pass.q + at) * delta;
      store_quad(place, delta);
    }
    if (pass.delta != nullptr) store_quad(pass.delta + at, delta);
    store_quad(pass.sum + at, pass.starts_sum ? delta : load_quad(pass.sum + at) + delta);
    if (pass.largest == nullptr || pass.tiling.point(tile, i / quads) < 0) continue;
    largest = larger(larger(larger(larger(largest, delta.x), delta.y), delta.z), delta.w);
  }
  if (pass.largest != nullptr) atomic_max(pass.largest + tile / pass.tiling.per_item, largest);
}

// A step back: a block per tile.
CRFSEG_KERNEL pass_back(CRFSEG_CONSTANT BackPass pass) {
  if (pass.skip != nullptr && *pass.skip != 0) return;
  CRFSEG_SHARED(shared);
  const TileValues own = room_of_block(pass, shared);
  const int slots = pass.tiling.size();
  for (std::int64_t tile = block_index(); tile < pass.tiling.n_tiles(); tile += grid_size()) {
    gather(pass, tile, own);
    block_barrier();
    for (int slot = thread_index(); pass.q != nullptr && slot < slots; slot += block_size()) {
      subtract_mean(pass.q + (tile * slots + slot) * pass.width, pass.width,
                    own.rows + slot * own.stride);
    }
    block_barrier();
    find_delta(pass, tile, own);
    block_barrier();
    if (pass.splats) splat_terms(pass, tile, own);
    block_barrier();
  }
}

// Rows of slots, times a factor, to where the caller wants them.
CRFSEG_KERNEL write_rows(CRFSEG_CONSTANT Tiling tiling, int n_labels, int width, const float* rows,
                         float factor, BatchView<float> out) {
  for (std::int64_t tile = block_index(); tile < tiling.n_tiles(); tile += grid_size()) {
    const float* first = rows + tile * tiling.size() * width;
    write_tile(tiling, tile, n_labels, out,
               [&](int slot, int label) { return factor * first[slot * width + label]; });
  }
}

// Ends a term of the series, and the series where nothing is left of any item's that was finite.
// One block.
CRFSEG_KERNEL end_term(SeriesState* state, std::int64_t n_items, const std::uint32_t* first,
                       std::uint32_t* last, float tolerance, bool is_first) {
  if (state->is_done != 0) return;
  constexpr std::uint32_t infinity = 0x7F800000;
  for (std::int64_t i = thread_index(); i < n_items; i += block_size()) {
    const std::uint32_t now = is_first ? first[i] : last[i];
    const float of_first = float_of_bits(first[i]), of_now = float_of_bits(now);
    if (first[i] >= infinity) {
      atomic_max(&state->n_endless, 1U);
    } else if (first[i] != 0 && (is_first || !(of_now <= tolerance * of_first))) {
      atomic_max(&state->n_left, 1U);
    }
    last[i] = 0;
  }
  block_barrier();
  if (thread_index() != 0) return;
  ++state->terms;
  state->is_done = state->n_left == 0 ? 1 : 0;
  state->is_converged = state->n_left == 0 && state->n_endless == 0 ? 1 : 0;
  state->n_left = 0;
}

}  // namespace

class UnrolledField::Return {
 public:
  Return(UnrolledField* field, const BackOptions& options);
  ~Return();

  void go(BatchView<const float> gradient, BatchView<float> out);

 private:
  struct Step {
    BatchView<const float> gradient;
    const float* q = nullptr;
    bool splats = false, starts = false;
    float* delta = nullptr;
    std::uint32_t* largest = nullptr;
    const std::uint32_t* skip = nullptr;
  };

  void start(BatchView<const float> gradient);
  void unroll();
  void sum_series();
  void back(const Step& step);
  void pair(int t, const std::uint32_t* skip);
  void exchange(const std::uint32_t* skip);
  void note(const float* delta, const float* q, int t);
  void end_series_term(bool is_first);
  bool wants_delta() const { return !moved_.empty() || !probes_.empty(); }
  Array<float> rows() const {
    return Array<float>(field_.tiling_.n_slots() * field_.width_, field_.allocate_);
  }
  SeriesState* state() const { return reinterpret_cast<SeriesState*>(field_.series_.data()); }
  std::uint32_t* largest(bool of_first) const {
    return field_.series_.data() + words_of<SeriesState>() +
           (of_first ? 0 : field_.tiling_.n_items);
  }

  UnrolledField& field_;
  const BackOptions& options_;
  Array<float> sum_, delta_;
  std::vector<std::unique_ptr<MovedFeatures>> moved_;
  std::vector<std::unique_ptr<ProbedTerm>> probes_;
};

UnrolledField::Return::Return(UnrolledField* field, const BackOptions& options)
    : field_(*field), options_(options) {
  for (std::size_t k = 0; k < field_.terms_.size(); ++k) {
    CoupledTerm& term = *field_.terms_[k];
    term.start_back();
    auto moved =
        moved_features(&term, options.features[k], field_.width_, field_.allocate_, field_.stream_);
    if (moved) moved_.push_back(std::move(moved));
  }
  for (const Probe& probe : options.probes) {
    probes_.push_back(std::make_unique<ProbedTerm>(
        field_.terms_[static_cast<std::size_t>(probe.kernel)]->over(probe.lattice, probe.gain),
        field_.n_labels_, field_.width_, field_.allocate_, field_.stream_));
  }
  sum_ = rows();
  if (wants_delta() && !field_.options_.fixed_point) delta_ = rows();
}

UnrolledField::Return::~Return() {
  for (const auto& term : field_.terms_) term->drop_rows();
  for (int t = 0; t < static_cast<int>(field_.q_.size()); ++t) field_.forget(t);
}

void UnrolledField::Return::go(BatchView<const float> gradient, BatchView<float> out) {
  fill_bytes(field_.series_.data(), 0, static_cast<std::size_t>(field_.series_.nbytes()),
             field_.stream_);
  start(gradient);
  if (field_.options_.fixed_point) {
    sum_series();
  } else {
    unroll();
  }
  CRFSEG_LAUNCH(write_rows, blocks_of(field_.tiling_.n_tiles()), block_threads, 0, field_.stream_,
                field_.tiling_, field_.n_labels_, field_.width_, sum_.data(),
                field_.is_energy_ ? -1.0F : 1.0F, out);
  for (std::size_t k = 0; k < field_.terms_.size(); ++k) {
    field_.terms_[k]->write_coupling(options_.couplings[k]);
  }
  for (const auto& moved : moved_) moved->finish();
  for (std::size_t i = 0; i < probes_.size(); ++i) probes_[i]->write(options_.probes[i].out);
}

// delta of the last step, from what the caller says.
void UnrolledField::Return::start(BatchView<const float> gradient) {
  const int n = field_.options_.iterations;
  Step step;
  step.gradient = gradient;
  step.splats = field_.options_.fixed_point || n > field_.plan_.first;
  step.starts = true;
  step.delta = delta_.data();
  if (!field_.options_.wants_logits) step.q = field_.marginals(n);
  if (field_.options_.fixed_point) step.largest = largest(true);
  back(step);
  field_.forget(n);
}

void UnrolledField::Return::unroll() {
  const int first = field_.plan_.first;
  for (int t = field_.options_.iterations - 1; t >= first; --t) {
    field_.find_sums(t);
    pair(t, nullptr);
    const bool goes_on = t > first || t == 0;
    if (!goes_on && !wants_delta()) return;  // couplings have what they need
    Step step;
    step.q = field_.marginals(t);
    exchange(nullptr);
    note(delta_.data(), step.q, t);
    if (!goes_on) return;
    step.splats = t > first;
    step.delta = delta_.data();
    back(step);
    field_.forget(t);
  }
}

// The sum of the series of deltas is what passes through the parameters, once.
void UnrolledField::Return::sum_series() {
  const float* q = field_.marginals(0);
  const std::uint32_t* skip = &state()->is_done;
  end_series_term(true);
  Step step;
  step.q = q;
  step.splats = true;
  step.largest = largest(false);
  step.skip = skip;
  for (int term = 0; term < options_.most_terms; ++term) {
    pair(-1, skip);
    exchange(skip);
    back(step);
    end_series_term(false);
  }
  field_.find_sums(0);
  for (const auto& term : field_.terms_) term->splat_back(sum_.data());
  pair(0, nullptr);
  if (!wants_delta()) return;
  exchange(nullptr);
  note(sum_.data(), q, 0);
}

void UnrolledField::Return::end_series_term(bool is_first) {
  CRFSEG_LAUNCH(end_term, 1, block_threads, 0, field_.stream_, state(), field_.tiling_.n_items,
                largest(true), largest(false), options_.tolerance, is_first);
}

void UnrolledField::Return::pair(int t, const std::uint32_t* skip) {
  for (const auto& term : field_.terms_) term->pair(t, skip);
}

void UnrolledField::Return::exchange(const std::uint32_t* skip) {
  for (const auto& term : field_.terms_) term->exchange_back(skip);
}

// What wants <delta, M K~ Q^t> in another way than through the rows of the lattice.
void UnrolledField::Return::note(const float* delta, const float* q, int t) {
  for (const auto& moved : moved_) moved->add(delta, q, t);
  for (const auto& probe : probes_) probe->add(delta, q);
}

void UnrolledField::Return::back(const Step& step) {
  BackPass pass;
  pass.tiling = field_.tiling_;
  pass.n_labels = field_.n_labels_;
  pass.width = field_.width_;
  for (const auto& term : field_.terms_) pass.terms[pass.n_terms++] = term->back();
  pass.room = field_.room_.rows();
  pass.gradient = step.gradient;
  pass.q = step.q;
  pass.splats = step.splats;
  pass.delta = step.delta;
  pass.sum = sum_.data();
  pass.starts_sum = step.starts;
  pass.largest = step.largest;
  pass.skip = step.skip;
  CRFSEG_LAUNCH(pass_back, field_.room_.blocks(), block_threads, field_.room_.shared_bytes(),
                field_.stream_, pass);
}

void UnrolledField::back(BatchView<const float> gradient, const BackOptions& options,
                         BatchView<float> out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!is_run_) throw Error("there is nothing to go back through");
  if (options.features.size() != terms_.size() || options.couplings.size() != terms_.size()) {
    throw Error("expected what is wanted of features and couplings for each kernel");
  }
  Return(this, options).go(gradient, out);
}

Series UnrolledField::series() const {
  if (!options_.fixed_point) return {};
  SeriesState state;
  copy_to_host(&state, series_.data(), sizeof(state), stream_);
  return {static_cast<int>(state.terms), state.is_converged != 0};
}

}  // namespace cuda
}  // namespace crfseg
