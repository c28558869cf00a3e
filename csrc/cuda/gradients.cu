// SPDX-License-Identifier: MIT
// The way forth: steps of which some are kept, and found again between those that are.
#include <limits>
#include <utility>

#include "cuda/coupled_term.h"
#include "cuda/gradients.h"
#include "cuda/gradients_state.h"
#include "cuda/grid.h"
#include "cuda/passes.cuh"

namespace crfseg {
namespace cuda {
namespace {

struct UnrolledPass : TilePass {
  BatchView<const float> unary;  // to be read into logits; or null
  float sign = 1.0F;             // of what is read
  float* logits = nullptr;       // (slots, width) less the highest of their point
  float* highest = nullptr;      // (slots) or null
  std::uint32_t* is_bad = nullptr;
  bool slices = false, splats = false, watches_change = false;
  float* q = nullptr;  // (slots, width) or null
  UnrollState* state = nullptr;
  BatchView<float> out;  // written where this is the last step, or nothing moves any more
  bool is_last = false, wants_logits = false;
};

// Only differences between labels matter to Q, and messages must not drown in a common offset.
CRFSEG_DEVICE void read_logits(const UnrolledPass& pass, std::int64_t tile, const TileValues& own) {
  bool is_bad = false;
  read_tile(pass, tile, own, log_zero, [&](std::int64_t point, int label) {
    const float value = pass.unary(tile / pass.tiling.per_item, label, point);
    is_bad = is_bad || !(fabsf(value) <= largest_float);
    return pass.sign * value;
  });
  if (is_bad) atomic_max(pass.is_bad, 1U);
  block_barrier();
  const int slots = pass.tiling.size();
  for (int slot = thread_index(); slot < slots; slot += block_size()) {
    float* row = own.rows + slot * own.stride;
    float top = row[0];
    for (int label = 1; label < pass.n_labels; ++label) top = fmaxf(top, row[label]);
    for (int label = 0; label < pass.n_labels; ++label) {
      row[label] = fmaxf(row[label] - top, log_zero);
    }
    if (pass.highest != nullptr) pass.highest[tile * slots + slot] = top;
  }
  block_barrier();
  const int quads = pass.width / 4;
  for (int i = thread_index(); i < slots * quads; i += block_size()) {
    const Quad own_quad = load_quad(own.rows + i / quads * own.stride + i % quads * 4);
    store_quad(pass.logits + tile * slots * pass.width + std::int64_t{4} * i, own_quad);
  }
}

CRFSEG_DEVICE void find_logits(const UnrolledPass& pass, std::int64_t tile, const TileValues& own) {
  const int slots = pass.tiling.size(), quads = pass.width / 4;
  for (int i = thread_index(); i < slots * quads; i += block_size()) {
    const int slot = i / quads, quad = i % quads;
    Quad z = load_quad(pass.logits + tile * slots * pass.width + std::int64_t{4} * i);
    for (int k = 0; pass.slices && k < pass.n_terms; ++k) {
      z = z + message_of(pass.terms[k], tile, slot, pass.n_labels, pass.width, quad, nullptr);
    }
    store_quad(own.rows + slot * own.stride + 4 * quad, z);
  }
}

CRFSEG_DEVICE float largest_of(Quad a) {
  return fmaxf(fmaxf(fabsf(a.x), fabsf(a.y)), fmaxf(fabsf(a.z), fabsf(a.w)));
}

// Keeps a tile's marginals.
CRFSEG_DEVICE void keep(const UnrolledPass& pass, bool watches, std::int64_t tile,
                        const TileValues& own) {
  const int slots = pass.tiling.size(), quads = pass.width / 4;
  std::uint32_t change = 0;
  for (int i = thread_index(); i < slots * quads; i += block_size()) {
    float* q = pass.q + tile * slots * pass.width + std::int64_t{4} * i;
    const Quad after = load_quad(own.rows + i / quads * own.stride + i % quads * 4);
    if (watches && pass.tiling.point(tile, i / quads) >= 0) {
      const std::uint32_t moved = bits_of_float(largest_of(after - load_quad(q)));
      change = moved > change ? moved : change;
    }
    store_quad(q, after);
  }
  if (watches) atomic_max(&pass.state->change, change);
}

// A step forth: a block per tile.
CRFSEG_KERNEL pass_forth(CRFSEG_CONSTANT UnrolledPass pass) {
  if (pass.state != nullptr && pass.state->is_done != 0) return;
  const bool is_settled = pass.state != nullptr && pass.state->is_settled != 0;
  const bool writes = pass.out && (pass.is_last || is_settled);
  CRFSEG_SHARED(shared);
  const TileValues own = room_of_block(pass, shared);
  const int slots = pass.tiling.size();
  for (std::int64_t tile = block_index(); tile < pass.tiling.n_tiles(); tile += grid_size()) {
    if (pass.unary) {
      read_logits(pass, tile, own);
    } else {
      find_logits(pass, tile, own);
    }
    block_barrier();
    if (writes && pass.wants_logits) {
      write_tile(pass.tiling, tile, pass.n_labels, pass.out, [&](int slot, int label) {
        return own.rows[slot * own.stride + label] + pass.highest[tile * slots + slot];
      });
      block_barrier();
    }
    for (int slot = thread_index(); slot < slots; slot += block_size()) {
      softmax(own.rows + slot * own.stride, pass.width);
    }
    block_barrier();
    if (writes && !pass.wants_logits) {
      write_tile(pass.tiling, tile, pass.n_labels, pass.out,
                 [&](int slot, int label) { return own.rows[slot * own.stride + label]; });
    }
    if (pass.q != nullptr) keep(pass, pass.watches_change && !is_settled, tile, own);
    if (pass.splats && !is_settled) splat_terms(pass, tile, own);
    block_barrier();
  }
}

CRFSEG_KERNEL end_step(UnrollState* state, std::uint32_t tolerance, bool is_first) {
  if (state->is_done != 0) return;
  if (!is_first) ++state->iterations;
  state->is_done = state->is_settled;
  if (is_first || state->is_settled != 0) return;
  state->last_change = state->change;
  state->change = 0;
  state->is_settled = state->last_change < tolerance ? 1 : 0;
}

}  // namespace

// What a pass is to do, beside what is the same for all.
struct UnrolledField::Step {
  BatchView<const float> unary;
  bool slices = false, splats = false, watches = false, heeds_state = false, is_last = false;
  float* q = nullptr;
  BatchView<float> out;
};

UnrolledField::UnrolledField(const Tiling& tiling, int n_labels,
                             const std::vector<CoupledKernel>& kernels, Allocate allocate,
                             Stream stream)
    : tiling_(tiling),
      n_labels_(n_labels),
      width_(padded(n_labels)),
      allocate_(std::move(allocate)),
      stream_(stream),
      room_(tiling, width_, allocate_) {
  if (n_labels < 1 || n_labels > most_labels) throw Error("a device takes 1 to 1024 labels");
  if (kernels.size() > most_terms) throw Error("a device takes up to 8 pairwise terms");
  for (const CoupledKernel& kernel : kernels) {
    terms_.push_back(std::make_unique<CoupledTerm>(kernel, n_labels, width_, allocate_, stream));
  }
  state_ = Array<std::uint32_t>(words_of<UnrollState>(), allocate_);
  series_ = Array<std::uint32_t>(words_of<SeriesState>() + 2 * tiling.n_items, allocate_);
}

UnrolledField::~UnrolledField() = default;

std::int64_t UnrolledField::nbytes() const {
  std::int64_t sum = logits_.nbytes() + highest_.nbytes() + room_.nbytes();
  for (const Array<float>& q : q_) sum += q.nbytes();
  for (const auto& term : terms_) sum += term->nbytes();
  return sum;
}

void UnrolledField::forth(const Step& step) {
  UnrolledPass pass;
  pass.tiling = tiling_;
  pass.n_labels = n_labels_;
  pass.width = width_;
  for (const auto& term : terms_) pass.terms[pass.n_terms++] = term->forth();
  pass.room = room_.rows();
  pass.unary = step.unary;
  pass.sign = is_energy_ ? -1.0F : 1.0F;
  pass.logits = logits_.data();
  pass.highest = highest_.data();
  pass.is_bad = &reinterpret_cast<UnrollState*>(state_.data())->is_bad;
  pass.slices = step.slices;
  pass.splats = step.splats;
  pass.watches_change = step.watches;
  pass.q = step.q;
  if (step.heeds_state) pass.state = reinterpret_cast<UnrollState*>(state_.data());
  pass.out = step.out;
  pass.is_last = step.is_last;
  pass.wants_logits = options_.wants_logits;
  CRFSEG_LAUNCH(pass_forth, room_.blocks(), block_threads, room_.shared_bytes(), stream_, pass);
}

// keep: the step whose blurred sums are kept; or -1.
void UnrolledField::exchange(int keep, const std::uint32_t* skip) {
  for (const auto& term : terms_) term->exchange(keep, skip);
}

void UnrolledField::forget(int t) {
  const int place = plan_.place_of(t);
  if (!plan_.is_kept(t)) q_[place] = {};
  for (const auto& term : terms_) {
    if (!plan_.keeps_sums(t)) term->forget_sums(place);
  }
}

void UnrolledField::run(BatchView<const float> unary, bool is_energy, const UnrollOptions& options,
                        BatchView<float> out) {
  if (options.every < 1 || options.differentiated < 0 || options.iterations < 0) {
    throw Error("steps are counted from 0, and kept from every one on");
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  is_run_ = false;
  is_energy_ = is_energy;
  options_ = options;
  const int n = options.iterations;
  plan_ = UnrollPlan::of(n, options.differentiated, options.every, options.fixed_point,
                         options.wants_logits);
  q_.assign(static_cast<std::size_t>(plan_.n_places(n)), {});
  logits_ = Array<float>(tiling_.n_slots() * width_, allocate_);
  if (options.wants_logits) highest_ = Array<float>(tiling_.n_slots(), allocate_);
  for (const auto& term : terms_) term->start(q_.size());
  fill_bytes(state_.data(), 0, static_cast<std::size_t>(state_.nbytes()), stream_);
  const std::uint32_t* skip = options.fixed_point ? state_.data() : nullptr;
  Step step;
  step.out = out;
  step.heeds_state = options.fixed_point;
  for (int t = 0; t <= n; ++t) {
    step.unary = t == 0 ? unary : BatchView<const float>{};
    step.slices = t > 0;
    step.is_last = t == n;
    step.splats = !step.is_last;
    step.watches = options.fixed_point && t > 0;
    Array<float>& q = q_[plan_.place_of(t)];
    if (plan_.is_kept(t) && !q) q = Array<float>(tiling_.n_slots() * width_, allocate_);
    step.q = plan_.is_kept(t) ? q.data() : nullptr;
    forth(step);
    if (options.fixed_point) {
      CRFSEG_LAUNCH(end_step, 1, 1, 0, stream_, reinterpret_cast<UnrollState*>(state_.data()),
                    bits_of_float(options.tolerance), t == 0);
    }
    if (!step.is_last) exchange(plan_.keeps_sums(t) ? t : -1, skip);
  }
  for (const auto& term : terms_) term->drop_rows();
  if (!plan_.finds_again()) logits_ = {};
  highest_ = {};
  is_run_ = true;
}

bool UnrolledField::is_finite() const {
  UnrollState state;
  copy_to_host(&state, state_.data(), sizeof(state), stream_);
  return state.is_bad == 0;
}

Unrolling UnrolledField::unrolling() const {
  if (!options_.fixed_point) {
    return {options_.iterations, std::numeric_limits<float>::quiet_NaN()};
  }
  UnrollState state;
  copy_to_host(&state, state_.data(), sizeof(state), stream_);
  Unrolling found{static_cast<int>(state.iterations), std::numeric_limits<float>::quiet_NaN()};
  if (found.iterations > 0) found.max_change = float_of_bits(state.last_change);
  return found;
}

// Q^t, found again from the last step before it that is kept.
const float* UnrolledField::marginals(int t) {
  Array<float>& wanted = q_[plan_.place_of(t)];
  if (wanted) return wanted.data();
  const int start = plan_.start_for(t);
  for (const auto& term : terms_) term->start_messages();
  wanted = Array<float>(tiling_.n_slots() * width_, allocate_);
  for (int u = start; u <= t; ++u) {
    Step step;
    step.slices = u > start;
    step.splats = u < t;
    step.q = u == t ? wanted.data() : nullptr;
    if (u == start && start > 0) {
      for (const auto& term : terms_) term->splat(q_[start].data());
    } else {
      forth(step);
    }
    if (u < t) exchange(u == t - 1 && u >= plan_.first ? u : -1, nullptr);
  }
  return wanted.data();
}

// Blurred sums of Q^t, unless they are there.
void UnrolledField::find_sums(int t) {
  if (terms_.empty() || terms_.front()->has_sums(plan_.place_of(t))) return;
  const float* q = marginals(t);
  for (const auto& term : terms_) {
    term->start_messages();
    term->splat(q);
  }
  exchange(plan_.place_of(t), nullptr);
}

}  // namespace cuda
}  // namespace crfseg
