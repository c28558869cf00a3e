// SPDX-License-Identifier: MIT
// Kernels of mean-field inference.
#pragma once

#include <cmath>

#include "cuda/mean_field.h"
#include "cuda/passes.cuh"

namespace crfseg {
namespace cuda {

// How an inference stands.
struct FieldState {
  std::uint32_t is_done, iterations, change,
      last_change;  // bits of max |dQ|, which is not negative
};

// Rows of given marginals.
CRFSEG_KERNEL read_marginals(CRFSEG_CONSTANT Tiling tiling, BatchView<const float> values,
                             int n_labels, int width, float* rows) {
  for (std::int64_t i = grid_first(); i < tiling.n_slots(); i += grid_stride()) {
    const std::int64_t tile = i / tiling.size();
    const std::int64_t point = tiling.point(tile, static_cast<int>(i % tiling.size()));
    for (int label = 0; label < width; ++label) {
      rows[i * width + label] =
          point >= 0 && label < n_labels ? values(tile / tiling.per_item, label, point) : 0.0F;
    }
  }
}

CRFSEG_KERNEL read_labels(CRFSEG_CONSTANT Tiling tiling, const std::int32_t* labels, int width,
                          float* rows) {
  for (std::int64_t i = grid_first(); i < tiling.n_slots(); i += grid_stride()) {
    const std::int64_t tile = i / tiling.size();
    const std::int64_t point = tiling.point(tile, static_cast<int>(i % tiling.size()));
    const int own = point >= 0 ? labels[tile / tiling.per_item * tiling.n_points + point] : -1;
    for (int label = 0; label < width; ++label) {
      rows[i * width + label] = label == own ? 1.0F : 0.0F;
    }
  }
}

// The natural parameters that damping starts from, where Q was given: its logarithm.
CRFSEG_KERNEL log_marginals(std::int64_t n, const float* q, float* z) {
  for (std::int64_t i = grid_first(); i < n; i += grid_stride()) {
    z[i] = logf(fmaxf(q[i], least_normal));
  }
}

struct FieldPass : TilePass {
  const void* log_unary = nullptr;  // (slots, width), stored as rows of terms
  float* q = nullptr;     // (slots, width) or null: the marginals before, and then those after
  bool is_given = false;  // q is splat and written as it is
  bool slices = true, splats = true, watches_change = false;
  float damping = 0.0F;
  float* z = nullptr;  // (slots, width) natural parameters, where damped
  FieldState* state = nullptr;
  MarginalView out;
  LabelTarget labels;
};

// Logits of a tile: -U and the messages. T: what rows are stored as, in all that follows.
template <class T>
CRFSEG_DEVICE void find_logits(const FieldPass& pass, std::int64_t tile, const TileValues& own) {
  const int slots = pass.tiling.size(), quads = pass.width / 4;
  for (int i = thread_index(); i < slots * quads; i += block_size()) {
    const int slot = i / quads, quad = i % quads;
    const std::int64_t at = (tile * slots + slot) * pass.width;
    const float* q = pass.q != nullptr ? pass.q + at : nullptr;
    const T* log_unary = static_cast<const T*>(pass.log_unary) + at;
    Quad t = pass.is_given ? load_quad(q + 4 * quad) : load_log_unary(log_unary + 4 * quad);
    for (int k = 0; pass.slices && k < pass.n_terms; ++k) {
      t = t + message_of<T>(pass.terms[k], tile, slot, pass.n_labels, pass.width, quad, q);
    }
    if (pass.z != nullptr) {
      if (pass.slices) {
        t = pass.damping * load_quad(pass.z + at + 4 * quad) + (1.0F - pass.damping) * t;
      }
      t = {fmaxf(t.x, log_zero), fmaxf(t.y, log_zero), fmaxf(t.z, log_zero), fmaxf(t.w, log_zero)};
      if (!pass.is_given) store_quad(pass.z + at + 4 * quad, t);
    }
    store_quad(own.rows + slot * own.stride + 4 * quad, t);
  }
}

// Keeps a slot's marginals; returns the largest change.
CRFSEG_DEVICE float keep(const float* row, int width, float* q) {
  float change = 0.0F;
  for (int i = 0; i < width; i += 4) {
    const Quad after = load_quad(row + i), d = after - load_quad(q + i);
    change = fmaxf(change, fmaxf(fmaxf(fabsf(d.x), fabsf(d.y)), fmaxf(fabsf(d.z), fabsf(d.w))));
    store_quad(q + i, after);
  }
  return change;
}

CRFSEG_DEVICE void write_point(const FieldPass& pass, std::int64_t item, std::int64_t point,
                               const float* row) {
  int best = 0;
  for (int label = 0; label < pass.n_labels; ++label) {
    if (pass.out && label >= pass.out.first_label) {
      const float value = pass.out.are_logs ? logf(fmaxf(row[label], least_normal)) : row[label];
      store_marginal(pass.out, pass.out.place(item, label - pass.out.first_label, point), value);
    }
    if (row[label] > row[best]) best = label;
  }
  const bool is_sure = row[best] >= pass.labels.least;
  pass.labels.store(item * pass.tiling.n_points + point, is_sure ? best : pass.labels.mark);
}

// What becomes of the logits of a tile's slots.
CRFSEG_DEVICE void find_marginals(const FieldPass& pass, std::int64_t tile, const TileValues& own) {
  const int slots = pass.tiling.size();
  const bool writes = pass.out || pass.labels;
  float change = 0.0F;
  for (int slot = thread_index(); slot < slots; slot += block_size()) {
    float* row = own.rows + slot * own.stride;
    const std::int64_t point = pass.tiling.point(tile, slot);
    if (!pass.is_given) {
      softmax(row, pass.width);
      if (pass.q != nullptr) {
        const float own_change = keep(row, pass.width, pass.q + (tile * slots + slot) * pass.width);
        if (point >= 0) change = fmaxf(change, own_change);
      }
    }
    if (writes && point >= 0) write_point(pass, tile / pass.tiling.per_item, point, row);
  }
  if (pass.watches_change) atomic_max(&pass.state->change, bits_of_float(change));
}

// A mean-field pass: a block per tile.
template <class T>
CRFSEG_AT_ONCE(block_threads, 4)
CRFSEG_KERNEL pass_field(CRFSEG_CONSTANT FieldPass pass) {
  if (pass.state != nullptr && pass.state->is_done != 0) return;
  CRFSEG_SHARED(shared);
  const TileValues own = room_of_block(pass, shared);
  for (std::int64_t tile = block_index(); tile < pass.tiling.n_tiles(); tile += grid_size()) {
    find_logits<T>(pass, tile, own);
    block_barrier();
    find_marginals(pass, tile, own);
    block_barrier();
    if (pass.splats) splat_terms<T>(pass, tile, own);
    block_barrier();
  }
}

// Ends an iteration, and the inference where nothing changes any more.
CRFSEG_KERNEL end_iteration(FieldState* state, float tolerance) {
  if (state->is_done != 0) return;
  state->last_change = state->change;
  state->change = 0;
  ++state->iterations;
  if (tolerance > 0.0F && state->last_change < bits_of_float(tolerance)) state->is_done = 1;
}

// sum q log q + U q + 1/2 q (message) over a tile, its q having been spread. Labels that are
// forbidden have no mass.
template <class T>
CRFSEG_KERNEL find_energy(CRFSEG_CONSTANT FieldPass pass, bool entropy, double* tile_sums) {
  if (pass.state != nullptr && pass.state->is_done != 0) return;
  CRFSEG_SHARED(shared);
  double* room = reinterpret_cast<double*>(shared);
  const int slots = pass.tiling.size(), quads = pass.width / 4;
  for (std::int64_t tile = block_index(); tile < pass.tiling.n_tiles(); tile += grid_size()) {
    double sum = 0.0;
    for (int i = thread_index(); i < slots * quads; i += block_size()) {
      const int slot = i / quads, quad = i % quads;
      if (pass.tiling.point(tile, slot) < 0) continue;
      const std::int64_t at = (tile * slots + slot) * pass.width;
      const float* q = pass.q + at + 4 * quad;
      const T* row = static_cast<const T*>(pass.log_unary) + at;
      Quad message = no_quad();
      for (int k = 0; k < pass.n_terms; ++k) {
        message = message + message_of<T>(pass.terms[k], tile, slot, pass.n_labels, pass.width,
                                          quad, pass.q + at);
      }
      const Quad own_four = load_log_unary(row + 4 * quad);
      const float log_unary[4] = {own_four.x, own_four.y, own_four.z, own_four.w};
      const float messages[4] = {message.x, message.y, message.z, message.w};
      CRFSEG_UNROLL
      for (int part = 0; part < 4; ++part) {
        const double mass = static_cast<double>(q[part]);
        if (mass <= 0.0) continue;
        const double own = log_unary[part] <= log_zero ? HUGE_VAL : entropy ? log(mass) : 0.0;
        sum += mass * (own - static_cast<double>(log_unary[part]) -
                       0.5 * static_cast<double>(messages[part]));
      }
    }
    const double all = sum_of_block(sum, room);
    if (thread_index() == 0) tile_sums[tile] = all;
  }
}

}  // namespace cuda
}  // namespace crfseg
