// SPDX-License-Identifier: MIT
// Kernels of mean-field inference.
#pragma once

#include <cmath>

#include "cuda/mean_field.h"
#include "cuda/passes.cuh"
#include "math/self_paths.h"

namespace crfseg {
namespace cuda {

// Floats in the order of their numbers: comparing these compares those.
CRFSEG_DEVICE std::uint32_t ordered(float value) {
  const std::uint32_t bits = bits_of_float(value);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// What unaries were found to be; `inverse_low` is that of the lowest value, so that the largest is
// kept.
struct UnaryReportBits {
  std::uint32_t is_bad, inverse_low, off;
};

// How an inference stands.
struct FieldState {
  std::uint32_t is_done, iterations, change,
      last_change;  // bits of max |dQ|, which is not negative
};

// What is read of a point's label.
CRFSEG_DEVICE float read_value(const BatchView<const float>& values, UnaryKind kind,
                               std::int64_t item, int label, std::int64_t point) {
  if (kind != UnaryKind::foreground) return values(item, label, point);
  const float foreground = values(item, 0, point);
  return label == 0 ? 1.0F - foreground : foreground;
}

// The logarithm of the sum of exp of a point's logits, or its lowest energy.
CRFSEG_DEVICE float shift_of(const BatchView<const float>& values, UnaryKind kind,
                             std::int64_t item, int n_labels, std::int64_t point) {
  if (kind != UnaryKind::logits && kind != UnaryKind::energies) return 0.0F;
  const bool is_energy = kind == UnaryKind::energies;
  float best = values(item, 0, point);
  for (int label = 1; label < n_labels; ++label) {
    const float value = values(item, label, point);
    best = is_energy ? fminf(best, value) : fmaxf(best, value);
  }
  if (is_energy) return best;
  float total = 0.0F;
  for (int label = 0; label < n_labels; ++label) {
    total += expf(values(item, label, point) - best);
  }
  return best + logf(total);
}

CRFSEG_DEVICE float log_of(float value, UnaryKind kind, float clip, float shift) {
  switch (kind) {
    case UnaryKind::energies:
      return value > largest_float ? log_zero : shift - value;
    case UnaryKind::logits:
      return fmaxf(value - shift, log_zero);
    default:
      return logf(fmaxf(value, clip));
  }
}

// Rows of -U, energies counted from each point's lowest, the sums of which go to tile_sums.
CRFSEG_KERNEL read_unary(CRFSEG_CONSTANT Tiling tiling, BatchView<const float> values,
                         UnaryKind kind, float clip, int n_labels, int width, float* rows,
                         UnaryReportBits* report, double* tile_sums) {
  CRFSEG_SHARED(shared);
  double* room = reinterpret_cast<double*>(shared);
  for (std::int64_t tile = block_index(); tile < tiling.n_tiles(); tile += grid_size()) {
    const std::int64_t item = tile / tiling.per_item;
    double offset = 0.0;
    for (int slot = thread_index(); slot < tiling.size(); slot += block_size()) {
      const std::int64_t point = tiling.point(tile, slot);
      float* row = rows + (tile * tiling.size() + slot) * width;
      if (point < 0) {
        for (int label = 0; label < width; ++label) row[label] = 0.0F;
        continue;
      }
      const float shift = shift_of(values, kind, item, n_labels, point);
      float total = 0.0F, low = largest_float;
      bool is_bad = false, is_possible = false;
      for (int label = 0; label < n_labels; ++label) {
        const float value = read_value(values, kind, item, label, point);
        const bool forbids = kind == UnaryKind::energies && value > largest_float;
        is_bad = is_bad || (!(fabsf(value) <= largest_float) && !forbids);
        is_possible = is_possible || value <= largest_float;
        low = fminf(low, value);
        total += value;
        row[label] = log_of(value, kind, clip, shift);
      }
      for (int label = n_labels; label < width; ++label) row[label] = log_zero;
      if (is_bad || !is_possible) atomic_max(&report->is_bad, 1U);
      atomic_max(&report->inverse_low, ~ordered(low));
      if (kind == UnaryKind::probabilities) atomic_max(&report->off, ordered(fabsf(total - 1.0F)));
      if (kind == UnaryKind::energies) offset += static_cast<double>(shift);
    }
    const double sum = sum_of_block(offset, room);
    if (thread_index() == 0) tile_sums[tile] = sum;
  }
}

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
    z[i] = logf(fmaxf(q[i], 1.17549435e-38F));
  }
}

// The diagonal of K / gain by slots of what was built, times the scales of both ends.
struct DeviceNeighbours {
  CRFSEG_HD_MEMBER std::uint32_t next(std::uint32_t v, int axis, bool forth) const {
    return neighbours[2 * (axis * n_vertices + v) + (forth ? 0 : 1)];
  }
  const std::uint32_t* neighbours;
  std::int64_t n_vertices;
};

CRFSEG_KERNEL respond_to_self(CRFSEG_CONSTANT LatticeView lattice,
                              CRFSEG_CONSTANT self_paths::Blur blur, const float* slice_scale,
                              const float* splat_scale, float* self) {
  const Tiling& tiling = lattice.tiling;
  const DeviceNeighbours neighbours{lattice.neighbours, lattice.n_vertices};
  for (std::int64_t i = grid_first(); i < tiling.n_slots(); i += grid_stride()) {
    const std::int64_t tile = i / tiling.size(), slot = i % tiling.size();
    self[i] = 0.0F;
    if (tiling.point(tile, static_cast<int>(slot)) < 0) continue;
    const std::int64_t first = tile * tiling.size() * blur.corners + slot;
    std::uint32_t simplex[permutohedral::max_corners];
    int axis_to_next[permutohedral::max_corners];
    for (int k = 0; k < blur.corners; ++k) {
      simplex[k] = lattice.corner_vertex[first + k * tiling.size()];
    }
    self_paths::find_axes(blur, neighbours, simplex, axis_to_next);
    double sum = 0.0;
    for (int a = 0; a < blur.corners; ++a) {
      for (int b = 0; b < blur.corners; ++b) {
        const double weights =
            static_cast<double>(lattice.corner_weight[first + a * tiling.size()]) *
            static_cast<double>(lattice.corner_weight[first + b * tiling.size()]);
        sum += weights * self_paths::between(blur, neighbours, simplex, axis_to_next, a, b);
      }
    }
    float own = static_cast<float>(sum);
    if (slice_scale != nullptr) own *= slice_scale[i];
    if (splat_scale != nullptr) own *= splat_scale[i];
    self[i] = own;
  }
}

struct FieldPass : TilePass {
  const float* log_unary = nullptr;  // (slots, width)
  float* q = nullptr;     // (slots, width) or null: the marginals before, and then those after
  bool is_given = false;  // q is splat and written as it is
  bool slices = true, splats = true, watches_change = false;
  float damping = 0.0F;
  float* z = nullptr;  // (slots, width) natural parameters, where damped
  FieldState* state = nullptr;
  BatchView<float> out;
  std::int32_t* labels = nullptr;  // (n_items, n_points) or null
};

// Logits of a tile: -U and the messages.
CRFSEG_DEVICE void find_logits(const FieldPass& pass, std::int64_t tile, const TileValues& own) {
  const int slots = pass.tiling.size(), quads = pass.width / 4;
  for (int i = thread_index(); i < slots * quads; i += block_size()) {
    const int slot = i / quads, quad = i % quads;
    const std::int64_t at = (tile * slots + slot) * pass.width;
    const float* q = pass.q != nullptr ? pass.q + at : nullptr;
    Quad t = pass.is_given ? load_quad(q + 4 * quad) : load_quad(pass.log_unary + at + 4 * quad);
    for (int k = 0; pass.slices && k < pass.n_terms; ++k) {
      t = t + message_of(pass.terms[k], tile, slot, pass.n_labels, pass.width, quad, q);
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
    if (pass.out) pass.out(item, label, point) = row[label];
    if (row[label] > row[best]) best = label;
  }
  if (pass.labels != nullptr) pass.labels[item * pass.tiling.n_points + point] = best;
}

// What becomes of the logits of a tile's slots.
CRFSEG_DEVICE void find_marginals(const FieldPass& pass, std::int64_t tile, const TileValues& own) {
  const int slots = pass.tiling.size();
  const bool writes = pass.out || pass.labels != nullptr;
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
CRFSEG_KERNEL pass_field(CRFSEG_CONSTANT FieldPass pass) {
  if (pass.state != nullptr && pass.state->is_done != 0) return;
  CRFSEG_SHARED(shared);
  const TileValues own = room_of_block(pass, shared);
  for (std::int64_t tile = block_index(); tile < pass.tiling.n_tiles(); tile += grid_size()) {
    find_logits(pass, tile, own);
    block_barrier();
    find_marginals(pass, tile, own);
    block_barrier();
    if (pass.splats) splat_terms(pass, tile, own);
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
      const float* log_unary = pass.log_unary + at + 4 * quad;
      Quad message = no_quad();
      for (int k = 0; k < pass.n_terms; ++k) {
        message = message + message_of(pass.terms[k], tile, slot, pass.n_labels, pass.width, quad,
                                       pass.q + at);
      }
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

CRFSEG_KERNEL add_up_floats(std::int64_t n, const float* values, double* to) {
  CRFSEG_SHARED(shared);
  double own = 0.0;
  for (std::int64_t i = thread_index(); i < n; i += block_size()) {
    own += static_cast<double>(values[i]);
  }
  const double sum = sum_of_block(own, reinterpret_cast<double*>(shared));
  if (thread_index() == 0) *to = sum;
}

}  // namespace cuda
}  // namespace crfseg
